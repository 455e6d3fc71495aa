"""Keeps secrets out of what is written, shown and sent: each is replaced by `<NAME>`, an environment variable.

A secret is what stands under a key whose name says so (`api_key`, `password`), the value of an environment variable
with such a name (`MY_TOKEN`), wherever it turns up, and the user's part of a URL. A configuration that is read back
finds its secrets in the environment.
"""

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rlexp.errors import ConfigError

_WORD = r"(?:(?:api|access|private|secret)[_-]?key|secret|token|passw(?:or)?d|passphrase|credentials?)"
_NAME = re.compile(rf"(?:^|.*[^a-z]){_WORD}$", re.IGNORECASE)
_PLAIN = r"[^\s\"',;&{}\[\]()<>]"
_ASSIGNED = re.compile(rf"((?:\b|_)({_WORD})[\"']?\s*[=:]\s*[\"']?)({_PLAIN}{{5,}}(?![:.]){_PLAIN})", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@\"']+@")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]*)>")
SHORTEST = 8  # characters; the value of a variable that is shorter would be found where it is not meant


def redact(text: str) -> str:
    """A text without the secrets in it."""
    text = _USER.sub("", text)
    for secret, name in _of_environment().items():
        text = text.replace(secret, f"<{name}>")
    return _ASSIGNED.sub(lambda found: f"{found[1]}<{_variable(found[2])}>", text)


def redacted(value: Any) -> Any:
    """Plain values, such as a configuration, without the secrets in them."""
    return _redacted(value, redact, _of_environment())


def anonymous(value: Any) -> Any:
    """As `redacted`, but the same whatever the environment holds."""
    return _redacted(value, lambda text: _USER.sub("", text))


def _redacted(value: Any, of_text: Callable[[str], str], named: Mapping[str, str] = MappingProxyType({})) -> Any:
    """named: variables of the environment by their values."""
    if isinstance(value, Mapping):
        return {
            key: f"<{named.get(str(item), _variable(key))}>"
            if _is_secret(key, item)
            else _redacted(item, of_text, named)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(item, of_text, named) for item in value]
    return of_text(value) if isinstance(value, str) else value


def restored(value: Any, where: str = "") -> Any:
    """Plain values with each `<NAME>` of a secret as the environment has it; raises ConfigError where it has none."""
    if isinstance(value, Mapping):
        return {key: restored(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item, f"{where}[{index}]") for index, item in enumerate(value)]
    found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    if found is None or not _NAME.match(found[1]):
        return value
    if found[1] not in os.environ:
        raise ConfigError(f"{where}={value}: is a secret, which is not saved; set the environment variable {found[1]}")
    return os.environ[found[1]]


def _is_secret(key: Any, value: Any) -> bool:
    if not isinstance(key, str) or not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return False
    return bool(_NAME.match(key)) and not (isinstance(value, str) and _PLACEHOLDER.fullmatch(value))


def _variable(key: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", key.upper()).strip("_")


def _of_environment() -> dict[str, str]:
    """Value to name, the longest first: one may be part of another."""
    found = {value: name for name, value in os.environ.items() if len(value) >= SHORTEST and _NAME.match(name)}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
