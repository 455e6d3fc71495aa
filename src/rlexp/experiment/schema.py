"""Values of a configuration against the types and ranges that the code declares, and parts made from them.

A part's keys are the keyword-only parameters of its target; a value's type and legal range stand there, as
`Annotated[float, Range(0, 1)]`, and nowhere else. Positional parameters are parts that the builder hands over.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rlexp.errors import ConfigError, nearest
from rlexp.experiment.targets import resolve
from rlexp.functional import schedules
from rlexp.ranges import Range
from rlexp.types import Schedule

RESERVED = ("_target_", "_partial_")


class Part:
    """Annotation of a setting that is a node with a `_target_`."""


class Schema:
    """Checks and makes nodes; `plugins` are further packages that targets may come from."""

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        self.plugins = plugins

    # ---------------------------------------------------------------------------------------------------- checking

    def settings(self, node: Any, kind: type, where: str = "") -> dict[str, Any]:
        """The mapping `node` with the fields of dataclass `kind`, each checked; raises ConfigError."""
        if not isinstance(node, Mapping):
            raise ConfigError(f"{where}={_show(node)}: must be a mapping with the keys {', '.join(_hints(kind))}")
        hints = _hints(kind)
        _refuse_unknown(node, hints, where)
        missing = [key for key in hints if key not in node]
        if missing:
            raise ConfigError(f"{_join(where, missing[0])}: is missing; give it a value")
        return {key: self.value(node[key], hint, _join(where, key)) for key, hint in hints.items()}

    def part(self, node: Any, where: str, also: Sequence[str] = ()) -> dict[str, Any]:
        """A node with a `_target_`: its keys against the target's parameters. Returns it with normalised values.

        also: keys that stand beside them and were taken out before.
        """
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise ConfigError(
                f"{where}={_show(node)}: nothing is chosen for {where.split('.')[0]}; a part needs a _target_"
            )
        target = resolve(_text(node["_target_"], where), where, self.plugins)
        fields = config_fields(target)
        if not isinstance(node.get("_partial_", True), bool):
            raise ConfigError(f"{where}._partial_={_show(node['_partial_'])}: must be true or false")
        given = {key: value for key, value in node.items() if key not in RESERVED}
        _refuse_unknown(given, fields, where, (*RESERVED, *also))
        for key, (_, required) in fields.items():
            if required and key not in given:
                raise ConfigError(f"{where}.{key}: is missing; {node['_target_']} needs a value")
        checked = {key: self.value(value, fields[key][0], f"{where}.{key}") for key, value in given.items()}
        return {key: node[key] for key in RESERVED if key in node} | checked

    def value(self, value: Any, hint: Any, where: str) -> Any:
        """`value` as the hint wants it (whole floats become integers, integers floats), or ConfigError."""
        hint, limits = _unwrap(hint)
        if _is_union(hint):
            return self._union(value, hint, limits, where)
        if hint is Part:
            return self.part(value, where)
        if hint == Schedule:
            return self._schedule(value, limits, where)
        if dataclasses.is_dataclass(hint):
            return self.settings(value, typing.cast(type, hint), where)
        if isinstance(value, Mapping) and "_target_" in value and _may_be_a_part(hint):
            return self.part(value, where)
        return _in_range(_plain(self, value, hint, where), limits, where)

    def _union(self, value: Any, hint: Any, limits: Range | None, where: str) -> Any:
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        failures = []
        for option in (o for o in options if o is not type(None)):
            try:
                return _in_range(self.value(value, option, where), limits, where)
            except ConfigError as error:
                failures.append(error)
        raise failures[0]

    def _schedule(self, value: Any, limits: Range | None, where: str) -> Any:
        if not isinstance(value, Mapping):
            return _in_range(_plain(self, value, float, where, " or a schedule with a _target_"), limits, where)
        checked = self.part(value, where)
        target = resolve(checked["_target_"], where, self.plugins)
        if not inspect.isfunction(target) or len(given_fields(target)) != 1:
            raise ConfigError(f"{where}._target_={checked['_target_']}: is no schedule, a function of the progress")
        for key in ("value", "start", "end"):
            if key in checked and limits is not None:
                # A schedule may end at an open bound: a learning rate may reach 0.
                _in_range(checked[key], dataclasses.replace(limits, open_low=False), f"{where}.{key}")
        return checked

    # ---------------------------------------------------------------------------------------------------- making

    def make(self, node: Mapping[str, Any], where: str, **given: Any) -> Any:
        """Make a checked node: functions and `_partial_` nodes become partials, classes are called with `given`."""
        target = resolve(node["_target_"], where, self.plugins)
        hints = {key: hint for key, (hint, _) in config_fields(target).items()}
        values = {
            key: self._made(value, hints[key], f"{where}.{key}") for key, value in node.items() if key not in RESERVED
        }
        if inspect.isfunction(target) or node.get("_partial_"):
            return _partial(target, values)
        try:
            return target(**given, **values)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {error}") from error

    def _made(self, value: Any, hint: Any, where: str) -> Any:
        hint, _ = _unwrap(hint)
        if isinstance(value, Mapping) and "_target_" in value:
            return self.make(value, where)
        if hint == Schedule:
            return functools.partial(schedules.constant, value=value)
        return value


def _partial(target: Callable[..., Any], values: Mapping[str, Any]) -> Callable[..., Any]:
    made = functools.partial(target, **values)
    functools.update_wrapper(made, target)  # keeps what the function declares of itself (`of`)
    return made


@functools.cache
def config_fields(target: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """The parameters that come from YAML: name to (type hint, required).

    Of rlexp's and a plugin's own parts the keyword-only ones; of torch's all but those that rlexp hands over.
    """
    parameters = inspect.signature(target).parameters.values()
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    if target.__module__.startswith("torch."):
        chosen = [p for p in parameters if p.name not in ("params", "lr")]
    else:
        chosen = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {p.name: (hints.get(p.name, Any), p.default is inspect.Parameter.empty) for p in chosen}


def given_fields(target: Callable[..., Any]) -> list[str]:
    """The positional parameters of a class: the parts that the builder hands over by name."""
    parameters = inspect.signature(target).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


# ------------------------------------------------------------------------------------------------------------ helpers


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _unwrap(hint: Any) -> tuple[Any, Range | None]:
    if get_origin(hint) is not Annotated:
        return hint, None
    inner, *extras = get_args(hint)
    return inner, next((extra for extra in extras if isinstance(extra, Range)), None)


def _may_be_a_part(hint: Any) -> bool:
    """Not where a number, a text, a choice or a list of such is wanted."""
    if hint in (int, float, bool, str) or get_origin(hint) in (Literal, dict):
        return False
    return get_origin(hint) is None or get_origin(hint) is collections.abc.Callable


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _in_range(value: Any, limits: Range | None, where: str) -> Any:
    if limits is not None and isinstance(value, (int, float)) and value not in limits:
        raise ConfigError(f"{where}={_show(value)}: must be {limits}")
    return value


def _plain(schema: Schema, value: Any, hint: Any, where: str, also: str = "") -> Any:
    """Numbers, text, truth values, choices, lists, mappings."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            choices = [str(argument) for argument in arguments]
            near = nearest(str(value), choices)
            raise ConfigError(f"{where}={_show(value)}: must be one of {', '.join(choices)}{near}")
        return value
    if hint is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}={value}: must be a finite number")
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if hint in names:
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise ConfigError(f"{where}={_show(value)}: must be {names[hint]}{also}, not {_kind(value)}")
        return value
    if origin in (list, tuple) or (origin is not None and inspect.isclass(origin) and issubclass(origin, Sequence)):
        if not isinstance(value, list):
            raise ConfigError(f"{where}={_show(value)}: must be a list such as [64,64], not {_kind(value)}")
        element = arguments[0] if arguments else Any
        return [schema.value(item, element, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict or (origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={_show(value)}: must be a mapping, not {_kind(value)}")
        return dict(value)
    if not inspect.isclass(hint) or not isinstance(value, hint):
        raise ConfigError(f"{where}={_show(value)}: must be a node with a _target_, not {_kind(value)}")
    return value


def _refuse_unknown(node: Mapping[str, Any], known: Iterable[str], where: str, also: Iterable[str] = ()) -> None:
    for key in node:
        if key not in known:
            hint = nearest(str(key), [*known, *also]) or f"; known here: {', '.join(known) or 'none'}"
            raise ConfigError(f"{_join(where, key)}: unknown key{hint}")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}._target_={_show(value)}: must be text")
    return value


def _show(value: Any) -> str:
    shown = "null" if value is None else str(value)
    return " ".join(shown.split())[:80]


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
