"""Keeps secrets out of what is written, shown and sent: each is replaced by `<NAME>`, an environment variable.

A secret is a text below a key whose name says so (`api_key`, `openaiApiKey`, `password`), the value of an environment
variable with such a name (`MY_TOKEN`), wherever it turns up, and the user's part of a URL. Numbers are none. A
configuration that is read back finds its secrets in the environment.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from rlexp.errors import ConfigError

SHORTEST = 8  # characters; the value of a variable that is shorter would be found where it is not meant
RANDOM = 16  # characters; a value as long, of letters and digits, is nowhere by chance, also inside a word

_WORD = r"(?:(?:(?:api|access|private|secret)[_-]?key|secret|passw(?:or)?d|passphrase|credential)s?|token)"
_NAME = re.compile(rf"(?:^|.*[^a-z]){_WORD}$", re.IGNORECASE | re.ASCII)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_USER = re.compile(r"(?<=://)[^/\s\"'?#]+(?=@)")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]*)>")
_NUMBERED = re.compile(r"_\d+$")
_NO_SECRET = re.compile(r"[-+]?[\d_.]+(?:e[-+]?\d+)?|true|false|null|none", re.IGNORECASE)
_PLAIN = r"[^\s\"',;&{}\[\]()<>]"
_ASSIGNED = re.compile(
    rf"(?P<key>(?:\b|_|(?<=[a-z0-9])(?=[A-Z]))(?P<word>(?i:{_WORD}))(?P<closing>\\*[\"'])?\s*(?P<sign>=(?!=)|:)\s*)"
    r"(?:(?P<quote>\\*[\"'])(?P<quoted>(?:(?!(?P=quote)).)*)(?=(?P=quote)|$)"
    r"|(?P<nested>\{(?:[^{}]|\{[^{}]*\})*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\])"
    rf"|(?P<plain>(?:(?i:bearer|basic)\s+)?{_PLAIN}*(?![:.]){_PLAIN}))",
    re.MULTILINE,
)
_OVERRIDE = re.compile(r"([+~]*([A-Za-z_][\w.@/-]*)=)(.+)", re.DOTALL)
_Naming = Callable[[str, str], str]
"""From the name of a variable and a secret to what stands for it."""


def redact(text: str) -> str:
    """A text without the secrets in it. What only follows a word such as `token:` must look like one to be taken so."""
    text = _assigned(_of_variables(text), lambda name, _: f"<{name}>")
    return re.sub(r"(?<=://)@", "", _USER.sub("", text))


def redacted(value: Any) -> Any:
    """Plain values, such as a configuration, without the secrets in them: `restored` makes them as they were."""
    naming = _names()
    return _walk(value, lambda text: _saved(text, naming), naming, lambda text: _override(text, naming))


def anonymous(value: Any) -> Any:
    """As `redacted`, but the same whatever the environment and the secrets are."""

    def without_user(text: str) -> str:
        return re.sub(r"(?<=://)@", "", _USER.sub("", text))

    return _walk(value, without_user, lambda name, _: f"<{name}>", without_user)


def restored(value: Any, where: str = "", *, secret: bool = False) -> Any:
    """Plain values with each `<NAME>` of a secret as the environment has it.

    secret: the values are below the key of one.  Raises ConfigError where the environment has it not, or where it
    would not be found again in what is saved.
    """
    if isinstance(value, Mapping):
        return {
            key: restored(item, f"{where}.{key}" if where else str(key), secret=secret or _is_name(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [restored(item, f"{where}[{index}]", secret=secret) for index, item in enumerate(value)]
    return _restored(value, where, secret=secret) if isinstance(value, str) else value


def is_name_of_secret(variable: str) -> bool:
    """Whether `<VARIABLE>` in a configuration stands for what the environment holds."""
    return bool(_PLACEHOLDER.fullmatch(f"<{variable}>")) and _is_name(_NUMBERED.sub("", variable))


def _restored(text: str, where: str, *, secret: bool) -> str:
    names = [name for name in _PLACEHOLDER.findall(text) if is_name_of_secret(name)]
    for name in names:
        if name not in os.environ:
            verb = "is" if text == f"<{name}>" else "holds"
            raise ConfigError(
                f"{where}={text}: {verb} a secret, which is not saved; set the environment variable {name}"
            )
    found = _PLACEHOLDER.sub(lambda place: os.environ[place[1]] if place[1] in names else place[0], text)
    kept = "" if secret or not names else _saved(found, _names())
    for name in names:
        if not secret and os.environ[name] in kept:
            raise ConfigError(
                f"{where}={text}: what {name} holds would be saved with the run; outside a key such as api_key it "
                f"needs {SHORTEST} characters, and neither a letter nor a digit beside it"
            )
    return found


def _walk(
    value: Any, of_text: Callable[[str], str], naming: _Naming, of_item: Callable[[str], str], above: str = ""
) -> Any:
    """of_item: for texts in lists, which may be overrides.  above: variable of the key of a secret, if below one."""
    if isinstance(value, Mapping):
        return {
            key: _walk(item, of_text, naming, of_item, _variable(key) if _is_name(key) else above)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_walk(item, of_item, naming, of_item, above) for item in value]
    if not isinstance(value, str):
        return value
    return of_text(value) if not above or _PLACEHOLDER.fullmatch(value) or not value else naming(above, value)


def _names() -> _Naming:
    """Names for the secrets of one document: a secret that is a variable's value gets its name, no two share one."""
    taken = {name: value for name, value in os.environ.items() if _NAME.match(name)}
    known = {value: _variable(name) for name, value in taken.items() if value}

    def naming(name: str, secret: str) -> str:
        secret = _with_variables(secret)
        number, free = 1, known.get(secret, name)
        while taken.setdefault(free, secret) != secret:
            number += 1
            free = f"{name}_{number}"
        return f"<{free}>"

    return naming


def _saved(text: str, naming: _Naming, least: int = 6) -> str:
    """A text of a document, with a placeholder for each secret in it.  least: characters of an assigned one."""

    def user(found: re.Match[str]) -> str:
        hidden = re.fullmatch(rf"(?:[^:]*:)?{_PLACEHOLDER.pattern}", found[0])
        return found[0] if hidden else naming("URL_CREDENTIALS", found[0])

    return _assigned(_USER.sub(user, _of_variables(text)), naming, least)


def _override(text: str, naming: _Naming) -> str:
    """As `_saved`; of an override of a secret (`env.kwargs.api_key=...`), or of what is below it, the whole value."""
    text = _of_variables(text)
    found = _OVERRIDE.fullmatch(text)
    if found is None:
        return _saved(text, naming)
    secrets = [key for key in found[2].split(".") if _is_name(key)]
    if not secrets or _NO_SECRET.fullmatch(found[3]) or _PLACEHOLDER.fullmatch(found[3].strip("\"'")):
        return _saved(text, naming, least=1)
    return found[1] + naming(_variable(secrets[-1]), found[3])


def _assigned(text: str, naming: _Naming, least: int = 6) -> str:
    """A text without what it assigns to names of secrets: `token=...`, `"token": "..."`, `{token: ...}`.

    Behind a colon alone there may be a sentence: only what has letters and digits is taken for a secret there.
    """

    def secret(found: re.Match[str]) -> str:
        value = found["quoted"] or found["nested"] or found["plain"] or ""
        before = text[: found.start()]
        stated = found["sign"] == "=" or found["closing"] or before.rfind("{") > before.rfind("}")
        looks = len(value) >= SHORTEST and re.search(r"[A-Za-z]", value) and re.search(r"\d", value)
        if not (stated and len(value) >= least) and not looks:
            return found[0]
        if _NO_SECRET.fullmatch(value) or _PLACEHOLDER.fullmatch(value) or not re.search(r"[^\W\d]", value):
            return found[0]
        return f"{found['key']}{found['quote'] or ''}{naming(_variable(found['word']), value)}"

    return _ASSIGNED.sub(secret, text)


def _of_variables(text: str) -> str:
    """A text with the names of variables for their values, where these are whole words."""
    for secret, name in _of_environment().items():
        if secret in text:
            text = _whole(secret).sub(f"<{name}>", text)
    return text


def _with_variables(text: str) -> str:
    return _PLACEHOLDER.sub(lambda found: os.environ.get(found[1], found[0]), text)


def _whole(secret: str) -> re.Pattern[str]:
    """Where a secret stands as a word: not inside another; an escaped line's end or a colour may be before it."""
    if len(secret) >= RANDOM and re.search(r"[A-Za-z]", secret) and re.search(r"\d", secret):
        return re.compile(re.escape(secret))
    begin = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=[\d;\[]m))" if secret[0].isalnum() else ""
    return re.compile(begin + re.escape(secret) + (r"(?![A-Za-z0-9])" if secret[-1].isalnum() else ""))


def _is_name(key: Any) -> bool:
    """Whether a key says that a secret is below it."""
    return isinstance(key, str) and bool(_NAME.match(_HUMP.sub("_", key)))


def _variable(key: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", _HUMP.sub("_", key).upper()).strip("_").lstrip("0123456789_")


def _of_environment() -> dict[str, str]:
    """Value to name, the longest first: one may be part of another."""
    found = {
        value: _variable(name) for name, value in os.environ.items() if len(value) >= SHORTEST and _NAME.match(name)
    }
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
