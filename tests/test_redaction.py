"""What counts as a secret, what does not, and that a saved one is found again."""

import os
import random
import re
from typing import Any

import pytest

from rlexp import redaction
from rlexp.errors import ConfigError
from rlexp.experiment.identity import Identity, config_hash
from rlexp.redaction import anonymous, redact, redacted, restored


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "abcdefgh-12345")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("MY_TOKENS", "tokens-are-words")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:secret@example.org/x?y=1", "https://example.org/x?y=1"),
        ("see https://me@example.org, or a@b.org", "see https://example.org, or a@b.org"),
        ("refused abcdefgh-12345!", "refused <MY_TOKEN>!"),
        ("env.kwargs.api_key=qwertz: must be text", "env.kwargs.api_key=<API_KEY>: must be text"),
        ("env.kwargs={api_key: 'qwertz', n: 3}", "env.kwargs={api_key: '<API_KEY>', n: 3}"),
        ('{"password": "qwertz"}', '{"password": "<PASSWORD>"}'),
        ("GITHUB_TOKEN=qwertz1", "GITHUB_TOKEN=<TOKEN>"),
        ("abc num_tokens=1000000 key=abcdefg tokens-are-words max_tokens: 100000", None),
        ("optimizer.learning_rate=0.001 s0 monkey=business keyed: abcdefg", None),
        ("api_key=<MY_TOKEN>", None),
        ("{'openaiApiKey': 'qwertz', 'maxToken': 1000000}", "{'openaiApiKey': '<API_KEY>', 'maxToken': 1000000}"),
        ("TypeError: token: expected int", None),
        ("token: 'expected' is not one of theirs; num_token=100000, secret=None, token == expected", None),
        ("password: hunter2hunter2; token: abc", "password: <PASSWORD>; token: abc"),
        ("api_key=Bearer sk-123456!", "api_key=<API_KEY>"),
        ("credentials={user: bob, pin: [q]}: must be text", "credentials=<CREDENTIALS>: must be text"),
        ("abcdefgh-123456 xabcdefgh-12345", None),
        (r"a line\nabcdefgh-12345 and (abcdefgh-12345)", r"a line\n<MY_TOKEN> and (<MY_TOKEN>)"),
        ("\x1b[31mabcdefgh-12345\x1b[0m", "\x1b[31m<MY_TOKEN>\x1b[0m"),
    ],
)
def test_texts(text: str, kept: str | None) -> None:
    assert redact(text) == (text if kept is None else kept)


def test_a_configuration_comes_back_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "env": {"kwargs": {"api_key": "qwertz", "n": 3, "token": "abcdefgh-12345", "secret": None}},
        "tags": ["a"],
    }
    saved = redacted(config)
    assert saved["env"]["kwargs"] == {"api_key": "<API_KEY>", "n": 3, "token": "<MY_TOKEN>", "secret": None}
    assert redacted(saved) == saved
    with pytest.raises(ConfigError, match=r"env\.kwargs\.api_key=<API_KEY>: .* set the environment variable API_KEY"):
        restored(saved)
    monkeypatch.setenv("API_KEY", "qwertz")
    assert restored(saved) == config


@pytest.mark.parametrize(
    ("value", "saved"),
    [
        ({"url": "http://h/?key=abcdefgh-12345&n=1"}, {"url": "http://h/?key=<MY_TOKEN>&n=1"}),
        ({"url": "http://h/?token=qwertz"}, {"url": "http://h/?token=<TOKEN>"}),
        ({"url": "https://bob:pw@h/x"}, {"url": "https://<URL_CREDENTIALS>@h/x"}),
        ({"url": "https://bob:p@w@h/x"}, {"url": "https://<URL_CREDENTIALS>@h/x"}),
        ({"url": "https://bob:abcdefgh-12345@h/x"}, {"url": "https://bob:<MY_TOKEN>@h/x"}),
        (
            {"urls": ["https://bob:pw@h", "https://eve:pw@h", "https://bob:pw@i"]},
            {
                "urls": [
                    "https://<URL_CREDENTIALS>@h",
                    "https://<URL_CREDENTIALS_2>@h",
                    "https://<URL_CREDENTIALS>@i",
                ]
            },
        ),
        ({"openaiApiKey": "qwertz", "APIKey": "q"}, {"openaiApiKey": "<OPENAI_API_KEY>", "APIKey": "<API_KEY>"}),
        ({"a": {"token": "q"}, "b": {"token": "w"}}, {"a": {"token": "<TOKEN>"}, "b": {"token": "<TOKEN_2>"}}),
        ({"api_keys": ["q", "w", "q"]}, {"api_keys": ["<API_KEYS>", "<API_KEYS_2>", "<API_KEYS>"]}),
        (
            {"credentials": {"user": "bob", "more": [{"pin": "q", "n": 3}], "password": "w"}},
            {
                "credentials": {
                    "user": "<CREDENTIALS>",
                    "more": [{"pin": "<CREDENTIALS_2>", "n": 3}],
                    "password": "<PASSWORD>",
                }
            },
        ),
        ({"token": 1, "secret": True, "password": 0.5, "api_key": ""}, None),
        ({"token": "abc"}, {"token": "<SHORT_TOKEN>"}),
        ({"api_key": "Bearer abcdefgh-12345"}, {"api_key": "<API_KEY>"}),
        ({"said": "TypeError: token: expected int", "of": "<b> and <NOT_ONE>"}, None),
    ],
)
def test_what_is_saved_comes_back(value: Any, saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted(value) == (value if saved is None else saved)
    assert redacted(redacted(value)) == redacted(value)
    told = {
        "TOKEN": value["url"].split("=")[-1] if "url" in value else "q",
        "TOKEN_2": "w",
        "URL_CREDENTIALS": value.get("url", "//bob:pw@").split("//")[1].rpartition("@")[0],
        "URL_CREDENTIALS_2": "eve:pw",
        "OPENAI_API_KEY": "qwertz",
        "API_KEY": "q" if "APIKey" in value else "Bearer abcdefgh-12345",
        "API_KEYS": "q",
        "API_KEYS_2": "w",
        "CREDENTIALS": "bob",
        "CREDENTIALS_2": "q",
        "PASSWORD": "w",
    }
    document = redacted(value)
    for name, secret in told.items():
        monkeypatch.setenv(name, secret)
    assert restored(document) == value


PIECES = [
    "abcdefgh-12345",
    "http://h/?key=",
    "https://bob:pw@h/x ",
    "token=",
    "api_key: '",
    "'",
    '"',
    "qwertz9",
    "{",
    "}",
]
PIECES += [" ", "x", "=", ":", "password=hunter2hunter2", "<b>", "@", "?a&", "\n", "credentials={a: [b]}", "\\", "ü"]


def anything(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if depth < 3 and kind < 0.25:
        keys = draw.sample(["a", "url", "api_key", "openaiApiKey", "credentials", "token"], draw.randint(0, 3))
        return {key: anything(draw, depth + 1) for key in keys}
    if depth < 3 and kind < 0.4:
        return [anything(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    return draw.choice([1, True, None, 0.5, ""]) if kind < 0.5 else "".join(draw.choices(PIECES, k=draw.randint(1, 6)))


def test_random_values_come_back_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets the variables as `redacted` has called them gets the same values, or is told what is wrong."""
    told: dict[str, str] = {}
    names = redaction._names

    def telling() -> Any:
        naming = names()

        def told_too(name: str, secret: str) -> str:
            placeholder = naming(name, secret)
            told[placeholder[1:-1]] = re.sub(
                r"<([A-Z_\d]+)>", lambda m: told.get(m[1], os.environ.get(m[1], "")), secret
            )
            return placeholder

        return told_too

    draw, refused = random.Random(0), 0
    for _ in range(1000):
        value = {"a": anything(draw), "b": anything(draw)}
        with monkeypatch.context() as patched:
            told.clear()
            patched.setattr(redaction, "_names", telling)
            saved = redacted(value)
            patched.undo()
        with monkeypatch.context() as patched:
            for name, secret in told.items():
                patched.setenv(name, secret)
            try:
                assert restored(saved) == value
            except ConfigError:
                refused += 1
    assert refused < 50


def test_a_name_that_the_environment_has_for_another_secret_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "another")
    assert redacted({"api_key": "qwertz"}) == {"api_key": "<API_KEY_2>"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"env": {"url": "https://<URL_CREDENTIALS>@h"}}, r"env\.url=.*: holds a secret.* variable URL_CREDENTIALS$"),
        ({"tags": ["x <NO_TOKEN>"]}, r"tags\[0\]=x <NO_TOKEN>: holds a secret.* set the environment variable NO_TOKEN"),
        ({"n": "<SHORT_TOKEN>"}, r"n=<SHORT_TOKEN>: what SHORT_TOKEN holds would be saved .* 8 characters"),
        ({"n": "x<MY_TOKEN>"}, r"n=x<MY_TOKEN>: what MY_TOKEN holds would be saved .* neither a letter nor a digit"),
    ],
)
def test_what_cannot_come_back(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        restored(value)


def test_overrides_are_saved_without_secrets() -> None:
    typed = [
        "env.kwargs.api_key='a b,c'",
        "+env.kwargs.credentials.user=bob",
        "env.kwargs={api_key: q, n: 3}",
        'env.kwargs={api_key: "<MY_TOKEN>"}',
        "env.kwargs.token=12",
        "env.kwargs.tokens=abc",
        "abcdefgh-12345.token=qwertz",
        "abcdefgh-12345_token=qwertz",
    ]
    assert redacted({"overrides": typed})["overrides"] == [
        "env.kwargs.api_key=<API_KEY>",
        "+env.kwargs.credentials.user=<CREDENTIALS>",
        "env.kwargs={api_key: <API_KEY_2>, n: 3}",
        *typed[3:6],
        "<MY_TOKEN>.token=<TOKEN>",
        "<MY_TOKEN>_token=<TOKEN>",
    ]


def test_another_secret_is_no_other_experiment() -> None:
    def hashed(key: str) -> str:
        return config_hash({"env": {"id": "A", "kwargs": {"api_key": key, "n": 3}}})

    assert hashed("one") == hashed("two") == hashed("abcdefgh-12345")
    assert anonymous({"n": "abcdefgh-12345"}) == {"n": "abcdefgh-12345"}


def test_a_number_is_no_secret_and_makes_another_experiment() -> None:
    def hashed(kwargs: Any) -> str:
        return config_hash({"env": {"id": "A", "kwargs": kwargs}})

    assert hashed({"token": 1}) != hashed({"token": 2})
    assert hashed({"secret": True}) != hashed({"secret": False})
    assert hashed({"credentials": {"n": 1, "pin": "q"}}) != hashed({"credentials": {"n": 2, "pin": "q"}})
    assert hashed({"credentials": {"n": 1, "pin": "q"}}) == hashed({"credentials": {"n": 1, "pin": "w"}})


def test_a_checkpoint_says_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"seed": 0, "seeds": None, "env": {"id": "A", "kwargs": {"url": "http://h/?key=abcdefgh-12345"}}}
    state = Identity(config).state_dict()
    assert 'env.kwargs.url="http://h/?key=<MY_TOKEN>"' in state["lines"]
    Identity(config).load_state_dict(state)
    monkeypatch.delenv("MY_TOKEN")
    unknown = Identity(config).state_dict()
    monkeypatch.setenv("MY_TOKEN", "abcdefgh-12345")
    Identity(config).load_state_dict(unknown)
    config["env"] = {"id": "A", "kwargs": {"url": "http://h/?key=other"}}
    with pytest.raises(ConfigError, match=r"another run: env\.kwargs\.url is"):
        Identity(config).load_state_dict(state)
