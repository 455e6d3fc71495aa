"""The only reader of configurations: from a checked one to the parts of a run."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlexp.clock import Clock
from rlexp.envs.make import make_env
from rlexp.envs.model import read_model
from rlexp.envs.vector import SyncVector
from rlexp.errors import ConfigError, ResourceError, nearest
from rlexp.experience.actor import Actor
from rlexp.experience.collector import Collector
from rlexp.experiment.schema import Schema, given_fields
from rlexp.experiment.targets import resolve
from rlexp.functional.distributions import family_of, squashed_family_of
from rlexp.state import Optimization, TrainState
from rlexp.streams import derive_seed
from rlexp.types import Algorithm, EnvSpec, Experience


@dataclass
class Parts:
    """What the loop joins."""

    algorithm: Algorithm
    state: TrainState
    experience: Experience
    actor: Actor
    clock: Clock
    vector: SyncVector | None  # the training environments; None where a model is swept

    def close(self) -> None:
        if self.vector is not None:
            self.vector.close()


def build(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Parts:
    """Make every part of a run. `config` is checked: what fails here is the environment or the machine."""
    algorithm, state = make_learner(config, spec, schema)
    clock = Clock()
    vector: SyncVector | None = None

    def make_collector() -> Collector:
        nonlocal vector
        seed, num_envs = config["seed"], config["experience"]["num_envs"]
        vector = make_vector(config, spec, num_envs, lambda i, k: derive_seed(seed, "environment", i, k))
        return Collector(vector, seed, clock)

    makers = {
        "collector": make_collector,
        "clock": lambda: clock,
        "seed": lambda: config["seed"],
        "model": lambda: read_model(spec, config["env"]["kwargs"]),
    }
    experience = _make_given(config, "experience", schema, makers)
    return Parts(algorithm, state, experience, Actor(algorithm, state, spec), clock, vector)


def make_learner(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> tuple[Algorithm, TrainState]:
    """The algorithm and its train state, without any environment."""
    algorithm = make_algorithm(config, spec, schema)
    networks = make_networks(config, spec, schema, algorithm)
    state = TrainState(
        networks,
        algorithm.targets,
        make_optimizations(config, schema, algorithm, networks),
        seed=config["seed"],
        device=make_device(config),
        total_env_steps=config["total_env_steps"],
    )
    return algorithm, state


def make_vector(config: Mapping[str, Any], spec: EnvSpec, num_envs: int, episode_seed: Any) -> SyncVector:
    make = functools.partial(make_env, spec.id, config["env"]["kwargs"])
    return SyncVector(make, spec, num_envs, episode_seed)


def make_algorithm(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Algorithm:
    makers = {
        "policy": lambda: family_of(spec.action),
        "squashed_policy": lambda: squashed_family_of(spec.action),
        "estimator": lambda: schema.make(config["estimator"], "estimator"),
        "exploration": lambda: schema.make(config["exploration"], "exploration"),
    }
    algorithm: Algorithm = _make_given(config, "algorithm", schema, makers)
    return algorithm


def make_networks(
    config: Mapping[str, Any], spec: EnvSpec, schema: Schema, algorithm: Algorithm
) -> dict[str, nn.Module]:
    encoder = schema.make(config["network"], "network") if config["network"] is not None else None
    return algorithm.networks(spec, encoder)


def make_optimizations(
    config: Mapping[str, Any], schema: Schema, algorithm: Algorithm, networks: Mapping[str, nn.Module]
) -> dict[str, Optimization]:
    """One Optimization for each network that is not a target; `optimizer.networks.<name>` says what differs there.

    The rule is tried on a parameter, so that a value torch refuses is an error of the configuration.
    """
    node = config["optimizer"]
    if node is None:
        return {}
    stepped = [name for name in networks if name not in algorithm.targets]
    base = {key: value for key, value in node.items() if key != "networks"}
    for name in node["networks"]:
        if name not in stepped:
            raise ConfigError(f"optimizer.networks.{name}: the algorithm steps no such network{nearest(name, stepped)}")
    made = {name: schema.make({**base, **node["networks"].get(name, {})}, "optimizer") for name in stepped}
    for optimization in made.values():
        try:
            optimization.rule([torch.zeros(1)], lr=1e-3)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"optimizer.rule: {error}") from error
    return made


def make_device(config: Mapping[str, Any]) -> torch.device:
    """Raises ConfigError for a name that torch does not know, ResourceError for a device that is not there."""
    try:
        device = torch.device(config["device"])
    except RuntimeError:
        known = ("cpu", "cuda", "cuda:0", "mps")
        raise ConfigError(
            f"device={config['device']}: is no device{nearest(config['device'], known)}; try cpu or cuda"
        ) from None
    if device.type == "cpu":
        return device
    if device.type not in ("cuda", "mps", "xpu"):
        raise ConfigError(f"device={config['device']}: computes nothing; try cpu or cuda")
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises AssertionError, RuntimeError or NotImplementedError, by device
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ResourceError(f"device={config['device']}: is not available ({reason}); set device=cpu") from error
    return device


def _make_given(config: Mapping[str, Any], group: str, schema: Schema, makers: Mapping[str, Any]) -> Any:
    """Make a part, handing over what its positional parameters name."""
    target = resolve(config[group]["_target_"], group, schema.plugins)
    names = given_fields(target)
    for name in names:
        if name not in makers:
            raise ConfigError(f"{group}: {target.__name__} asks for '{name}'; it can be given {', '.join(makers)}")
    return schema.make(config[group], group, **{name: makers[name]() for name in names})
