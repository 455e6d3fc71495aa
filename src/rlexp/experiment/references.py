"""A composed configuration to plain values: references to other keys are followed, nothing else is evaluated.

OmegaConf's resolvers would read the environment, the clock and whatever a package registers; a reference to references
to references may stand for more than any memory holds.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlexp.errors import ConfigError
from rlexp.redaction import is_name_of_secret

MOST_CHARACTERS = 100_000  # of all that references stand for

_REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z0-9_.\[\]-]+)\}")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_][A-Za-z0-9_]*)")
_NO_TEXT = re.compile("[\\0\ud800-\udfff]")
_Place = tuple[Any, ...]


def resolved(config: DictConfig) -> dict[str, Any]:
    """Raises ConfigError for a resolver, for references without end and for values that JSON and YAML cannot hold."""
    raw = OmegaConf.to_container(config, resolve=False)
    sizes: dict[_Place, int] = {}
    total = 0
    for place, text in _texts(raw):
        total += _size(raw, place, text, sizes)
        if total > MOST_CHARACTERS:
            raise ConfigError(f"{_name(place)}: its references stand for more than {MOST_CHARACTERS:,} characters")
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    for place, value in _leaves(plain):
        _refuse_foreign(place, value)
    return {str(key): value for key, value in plain.items()}


def _texts(raw: Any) -> Iterator[tuple[_Place, str]]:
    """Every text with something to evaluate in it."""
    return ((place, value) for place, value in _leaves(raw) if isinstance(value, str) and "${" in value)


def _leaves(node: Any, place: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):
                raise ConfigError(f"{_name((*place, str(key)))}: a key must be text, not {type(key).__name__}")
            yield from _leaves(value, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, (*place, index))
    else:
        yield place, node


def _size(raw: Any, place: _Place, text: str, sizes: dict[_Place, int]) -> int:
    """Characters that a text stands for when its references are followed; a circle is left for OmegaConf to name."""
    rest = _REFERENCE.sub("", text)
    if "${" in rest:
        raise ConfigError(f"{_name(place)}={text[:80]}: {_instead(place, text)}")
    if place in sizes:
        return sizes[place]
    sizes[place] = 0
    size = len(rest)
    for dots, key in _REFERENCE.findall(text):
        start = place[: -len(dots)] if dots else ()
        target = (*start, *(int(k) if k.isdecimal() else k for k in re.split(r"[.\[\]]+", key.strip("[]")) if k))
        size += _size_at(raw, target, sizes)
    sizes[place] = min(size, 2 * MOST_CHARACTERS)
    return sizes[place]


def _instead(place: _Place, text: str) -> str:
    """What to do in place of something that is not evaluated."""
    key = _name(place).partition("[")[0]
    found = _VARIABLE.search(text)
    if found is None:
        return (
            "only a reference to another key, such as ${env.id}, is allowed; "
            f"give the value itself, {key}=... on the command line"
        )
    name = found[1]
    if is_name_of_secret(name):
        return f"a configuration does not read the environment; write <{name}> for the secret of this name"
    return (
        f"a configuration does not read the environment; give the value on the command line, where the shell knows it: "
        f'{key}="${name}"'
    )


def _size_at(raw: Any, target: _Place, sizes: dict[_Place, int]) -> int:
    node = raw
    for step in target:
        if isinstance(node, str) and "${" in node:
            raise ConfigError(
                f"${{{_name(target)}}}: leads through another reference; name the key that this one names"
            )
        if isinstance(node, Mapping):
            node = node.get(str(step))
        else:
            node = node[step] if isinstance(node, list) and isinstance(step, int) and step < len(node) else None
    total = 0
    for place, value in _leaves(node, target):
        text = str(value)
        total += _size(raw, place, text, sizes) if "${" in text else len(text) + 1
    return total


def _refuse_foreign(place: _Place, value: Any) -> None:
    if value is not None and not isinstance(value, (bool, int, float, str)):
        kind = type(value).__name__
        raise ConfigError(
            f"{_name(place)}: must be text, a number, true or false, null, a list or a mapping, not {kind}"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{_name(place)}: is a whole number of more than 64 bits")
    for text in (*place, value):
        if isinstance(text, str) and _NO_TEXT.search(text):
            raise ConfigError(f"{_name(place)}: holds a character that no file can")


def _name(place: _Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
