"""What counts as a secret, what does not, and that a saved one is found again."""

import pytest

from rlexp.errors import ConfigError
from rlexp.experiment.identity import config_hash
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


def test_another_secret_is_no_other_experiment() -> None:
    def hashed(key: str) -> str:
        return config_hash({"env": {"id": "A", "kwargs": {"api_key": key, "n": 3}}})

    assert hashed("one") == hashed("two") == hashed("abcdefgh-12345")
    assert anonymous({"n": "abcdefgh-12345"}) == {"n": "abcdefgh-12345"}
