"""From a composed configuration to a checked one, before any environment, directory or W&B run exists."""

import functools
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlexp.envs.make import missing_extra
from rlexp.errors import ConfigError, ResourceError
from rlexp.experiment import rules
from rlexp.experiment.build import make_algorithm, make_device, make_networks, make_optimizations
from rlexp.experiment.members import seeds_of
from rlexp.experiment.schema import Schema
from rlexp.experiment.settings import Settings
from rlexp.experiment.spaces import declared_spec, probed_spec
from rlexp.experiment.targets import import_package, resolve
from rlexp.optimization import Optimization
from rlexp.redaction import restored
from rlexp.types import Algorithm, EnvSpec

PLUGIN_GROUP = "rlexp.plugins"
COPIES = 4  # of a parameter while it is trained: itself, its gradient, two moments


@dataclass(frozen=True)
class Checked:
    """A configuration that can be built: values normalised, the environment's spec known."""

    config: dict[str, Any]
    spec: EnvSpec
    schema: Schema
    overrides: tuple[str, ...] = ()
    name: str = ""  # what a sweep calls the job; empty: it is called by all that was changed


@functools.cache
def installed_plugins() -> tuple[str, ...]:
    """Packages that declare the entry point group `rlexp.plugins`, looked for once a process."""
    return tuple(sorted({entry.value.split(":")[0] for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP)}))


def check(
    config: Mapping[str, Any], overrides: Sequence[str] = (), *, trusted_plugins: Sequence[str] | None = None
) -> Checked:
    """Check types, ranges, targets and pairs, and make the networks once; raises ConfigError for the first fault.

    trusted_plugins: for a configuration that was read from a run: the packages that the user names now, in place of
    those that the file names.
    """
    config = restored(config)
    named = config.get("plugins", []) if trusted_plugins is None else list(trusted_plugins)
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigError(f"plugins={named}: must be a list of package names")
    if named and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script, unlike `python -m`, does not look in the current folder
    schema = Schema([*installed_plugins(), *named])
    for plugin in schema.plugins:
        import_package(plugin, "plugins")  # it may register environments
    checked = _check_values(schema, config)
    _check_names(checked, overrides)
    parts = {group: _part(schema, checked, group) for group in ("algorithm", "experience", "estimator", "network")}
    for group in ("exploration", "baseline", "normalization", "optimizer"):
        _part(schema, checked, group)
    _apply_rules(checked, None, parts)
    _check_packages(checked)
    spec = declared_spec(checked["env"]) or probed_spec(checked["env"], list(schema.plugins))
    _apply_rules(checked, spec, parts)
    make_device(checked)
    algorithm = make_algorithm(checked, spec, schema)
    networks = _try_networks(checked, spec, schema, algorithm)
    make_optimizations(checked, schema, algorithm, networks)
    return Checked(checked, spec, schema, tuple(overrides))


DECLARES = {
    "algorithm": ("actions", "learns_from", "needs", "gives", "targets"),
    "experience": ("gives", "in_step"),
    "estimator": ("of",),
    "network": ("takes",),
    "exploration": ("noise",),
    "baseline": ("uses_value",),
    "normalization": ("fresh", "learn", "drawn", "statistics"),
    "optimizer": (),
}
"""What a group's class or function must say of itself: a target of another group has no such word."""


def _part(schema: Schema, config: Mapping[str, Any], group: str) -> Any:
    """The class or function of a group, None where it is `none`; raises ConfigError where it is of another kind."""
    if config[group] is None:
        return None
    target = resolve(config[group]["_target_"], group, schema.plugins)
    if "_partial_" in config[group] and not inspect.isfunction(target):
        raise ConfigError(f"{group}._partial_: is for optimizer.rule alone; leave it out")
    lacking = [name for name in DECLARES[group] if not hasattr(target, name)]
    if lacking or (group == "optimizer" and target is not Optimization):
        lacks = f": it declares no '{lacking[0]}'" if lacking else ""
        raise ConfigError(f"{group}._target_={config[group]['_target_']}: cannot serve as {group}{lacks}")
    return target


def _check_values(schema: Schema, config: Mapping[str, Any]) -> dict[str, Any]:
    checked = schema.settings(config, Settings)
    optimizer = checked["optimizer"]
    if optimizer is not None:
        base = {key: value for key, value in optimizer.items() if key != "networks"}
        networks = optimizer.get("networks", {})
        if not isinstance(networks, Mapping):
            raise ConfigError(
                f"optimizer.networks={networks}: must be a mapping from a network's name to what differs for it"
            )
        checked["optimizer"] = schema.part(base, "optimizer", ("networks",)) | {
            "networks": {name: _differences(schema, base, changes, name) for name, changes in networks.items()}
        }
    return checked


def _differences(schema: Schema, base: Mapping[str, Any], changes: Any, name: str) -> dict[str, Any]:
    where = f"optimizer.networks.{name}"
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{where}={changes}: must be a mapping such as {{learning_rate: 1e-3}}")
    whole = schema.part({**base, **changes}, where)
    return {key: whole[key] for key in changes}


def _check_names(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    for key in ("outputs", "device"):
        if not config[key] or "\0" in config[key]:
            raise ConfigError(f"{key}={config[key]!r}: must be text that is not empty")
    seeds = config["seeds"]
    if seeds is not None:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ConfigError(f"seeds={seeds}: must be one or more different seeds, such as [0,1,2]")
        if any(override.lstrip("+").partition("=")[0] == "seed" for override in overrides):
            raise ConfigError(f"seed={config['seed']} and seeds={seeds} exclude each other; choose one")
        if config["extend"] is not None:
            raise ConfigError("extend=RUN goes on from the run of one seed; leave out seeds")
    if config["restart"] and config["extend"] is not None:
        raise ConfigError("restart=true and extend=RUN exclude each other; choose one")


def _try_networks(
    config: Mapping[str, Any], spec: EnvSpec, schema: Schema, algorithm: Algorithm
) -> dict[str, nn.Module]:
    """The networks, not initialised: their memory is asked for and not touched.

    Raises ResourceError where training them would fill the machine's.
    """
    try:
        networks = make_networks(config, spec, schema, algorithm)
    except (RuntimeError, OverflowError, TypeError) as error:
        if not re.search("can't allocate memory|out of memory|overflow", str(error), re.IGNORECASE):
            raise
        raise ResourceError(
            "network: this machine has not got the memory for its parameters; lower its sizes"
        ) from error
    tensors = [tensor for module in networks.values() for tensor in (*module.parameters(), *module.buffers())]
    needed = COPIES * len(seeds_of(config)) * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there and config["device"] == "cpu":
        raise ResourceError(
            f"network: training takes {needed / 1e9:.1f} GB for its parameters alone, this machine has "
            f"{there / 1e9:.1f} GB; lower its sizes"
        )
    return networks


def _check_packages(config: Mapping[str, Any]) -> None:
    """Raises ConfigError where the environment's simulator is not installed."""
    extra = missing_extra(config["env"]["id"])
    if extra is not None:
        raise ConfigError(f"env.id={config['env']['id']}: its simulator is missing; pip install 'rlexp[{extra}]'")


def _apply_rules(config: Mapping[str, Any], spec: EnvSpec | None, parts: Mapping[str, Any]) -> None:
    """Rules about spaces once the spec is known, the others before: no probe is started for a run that cannot be."""
    choice = rules.Choice(config, spec, **parts)  # type: ignore[arg-type]
    for rule in rules.RULES:
        if (rule.__name__ in rules.SPACE_RULES) == (spec is not None):
            fault = rule(choice)
            if fault is not None:
                raise ConfigError(f"{rule.__name__}: {fault}")
