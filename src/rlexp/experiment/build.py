"""The only reader of configurations: from a checked one to the parts of a run."""

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlexp.clock import Clock
from rlexp.envs.asynchronous import AsyncVector, available_cores
from rlexp.envs.cartpole import CartPoleVector, is_cartpole
from rlexp.envs.make import make_env
from rlexp.envs.model import read_model
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import EpisodeSeed, Vector
from rlexp.errors import ConfigError, ResourceError, nearest
from rlexp.experience.actor import Actor
from rlexp.experience.collector import Collector
from rlexp.experience.normalization import Normaliser
from rlexp.experiment.members import seeds_of
from rlexp.experiment.schema import Schema, given_fields
from rlexp.experiment.targets import resolve
from rlexp.functional.distributions import family_of, squashed_family_of
from rlexp.optimization import Optimization
from rlexp.seeds import SeedsApart
from rlexp.state import TrainState, Updates
from rlexp.streams import derive_seed
from rlexp.types import Algorithm, EnvSpec, Experience, Seeds


@dataclass
class Parts:
    """What the loop joins."""

    algorithm: Algorithm
    state: Seeds
    experience: Experience
    actor: Actor
    clock: Clock
    vector: Vector | None  # the training environments; None where a model is swept

    def close(self) -> None:
        if self.vector is not None:
            self.vector.close()


def build(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Parts:
    """Make every part of a run. `config` is checked: what fails here is the environment or the machine."""
    algorithm, state = make_learner(config, spec, schema)
    clock = Clock()
    seeds = seeds_of(config)
    normaliser = make_normaliser(config, spec, schema)
    vector: Vector | None = None

    def make_vector_of_all() -> Vector:
        nonlocal vector
        num_envs = config["experience"]["num_envs"]
        episode_seed = functools.partial(_episode_seed, tuple(seeds), num_envs)
        vector = make_training_vector(config, spec, num_envs * len(seeds), episode_seed, schema.plugins)
        return vector

    makers = {
        "collector": lambda: Collector(make_vector_of_all(), seeds, clock),
        "vector": make_vector_of_all,
        "normaliser": lambda: normaliser,
        "clock": lambda: clock,
        "seeds": lambda: seeds,
        "model": lambda: read_model(spec, config["env"]["kwargs"]),
    }
    experience = _make_given(config, "experience", schema, makers)
    actor = Actor(algorithm, state, spec, normaliser.scaling, programs=config["execution"]["programs"])
    return Parts(algorithm, state, experience, actor, clock, vector)


def make_learner(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> tuple[Algorithm, Seeds]:
    """The algorithm and the train state of its seeds, without any environment."""
    algorithm = make_algorithm(config, spec, schema)
    networks = make_networks(config, spec, schema, algorithm)
    parts = (networks, algorithm.targets, make_optimizations(config, schema, algorithm, networks))
    device, total_env_steps, seeds = make_device(config), config["total_env_steps"], config["seeds"]
    experience: Any = resolve(config["experience"]["_target_"], "experience", schema.plugins)
    if seeds is None or experience.in_step:
        seed = config["seed"] if seeds is None else tuple(seeds)
        how = _updates(config["execution"], device, same_shapes=experience.in_step)
        return algorithm, TrainState(*parts, seed=seed, device=device, total_env_steps=total_env_steps, updates=how)
    return algorithm, SeedsApart(*parts, seeds=seeds, device=device, total_env_steps=total_env_steps)


def _updates(execution: Mapping[str, Any], device: torch.device, *, same_shapes: bool) -> Updates:
    """How updates are computed. Raises ResourceError where torch.compile has no compiler.

    Programs are of one thread, and of batches whose shapes come again: to record each of many costs more than it saves.
    """
    if execution["compile"]:
        compiler = os.environ.get("CXX", "g++")  # torch asks for this one alone, and takes it for the name of a program
        if device.type == "cpu" and shutil.which(compiler) is None:
            raise ResourceError(
                f"execution.compile=true: torch.compile needs a C++ compiler and there is no program {compiler!r}; "
                "install g++, set CXX to one program without arguments, or leave it out"
            )
        return "compiled"
    recorded = execution["programs"] and execution["threads"] == 1 and same_shapes and device.type == "cpu"
    return "programs" if recorded else "torch"


def make_actor(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Actor:
    """An actor with a train state of its own, for weights that are loaded into it; `config` is of one seed."""
    algorithm, state = make_learner(config, spec, schema)
    scaling = make_normaliser(config, spec, schema).scaling
    return Actor(algorithm, state, spec, scaling, programs=config["execution"]["programs"])


def make_normaliser(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Normaliser:
    """What `normalization` names; one that leaves all as it is, where it is none."""
    num_envs, seeds = config["experience"].get("num_envs", 1), seeds_of(config)
    gamma = config["algorithm"].get("gamma", 1.0)
    if config["normalization"] is None:
        return Normaliser(spec, num_envs, seeds, gamma, observation_clip=None, reward_clip=None)
    makers = {
        "spec": lambda: spec,
        "num_envs": lambda: num_envs,
        "seeds": lambda: seeds,
        "gamma": lambda: gamma,
    }
    normaliser: Normaliser = _make_given(config, "normalization", schema, makers)
    return normaliser


def _episode_seed(seeds: Sequence[int], num_envs: int, i: int, k: int) -> int:
    """Of episode k of environment i: the first `num_envs` environments belong to the first seed, and so on."""
    return derive_seed(seeds[i // num_envs], "environment", i % num_envs, k)


NUMPY_FROM = 4
"""So many CartPoles are faster as arrays than one after the other (docs/performance.md)."""


def make_training_vector(
    config: Mapping[str, Any], spec: EnvSpec, num_envs: int, episode_seed: EpisodeSeed, plugins: Sequence[str]
) -> Vector:
    """What `execution.vector` names. Raises EnvironmentFailure where an environment cannot be made."""
    execution = config["execution"]
    if execution["vector"] != "async":
        return make_vector(config, spec, num_envs, episode_seed)
    make = functools.partial(make_env, spec.id, config["env"]["kwargs"], tuple(plugins))
    workers = execution["workers"] or available_cores()
    return AsyncVector(make, spec, num_envs, episode_seed, workers, execution["step_deadline"])


def make_vector(config: Mapping[str, Any], spec: EnvSpec, num_envs: int, episode_seed: EpisodeSeed) -> Vector:
    """A vector in this process; every one gives the same numbers, so the fastest is chosen where none is named."""
    chosen, kwargs = config["execution"]["vector"], config["env"]["kwargs"]
    faster = num_envs >= NUMPY_FROM and is_cartpole(spec.id, kwargs)
    if chosen == "numpy" or (chosen == "auto" and faster):
        return CartPoleVector(spec, num_envs, episode_seed)
    return SyncVector(functools.partial(make_env, spec.id, kwargs), spec, num_envs, episode_seed)


def make_algorithm(config: Mapping[str, Any], spec: EnvSpec, schema: Schema) -> Algorithm:
    makers = {
        "policy": lambda: family_of(spec.action),
        "squashed_policy": lambda: squashed_family_of(spec.action),
        "estimator": lambda: schema.make(config["estimator"], "estimator"),
        "exploration": lambda: schema.make(config["exploration"], "exploration"),
        "baseline": lambda: schema.make(config["baseline"], "baseline") if config["baseline"] is not None else None,
    }
    algorithm: Algorithm = _make_given(config, "algorithm", schema, makers)
    return algorithm


def make_networks(
    config: Mapping[str, Any], spec: EnvSpec, schema: Schema, algorithm: Algorithm
) -> dict[str, nn.Module]:
    encoder = schema.make(config["network"], "network") if config["network"] is not None else None
    networks = algorithm.networks(spec, encoder)
    for name, module in networks.items():
        if not any(True for _ in module.parameters()):
            raise ConfigError(
                f"network {type(encoder).__name__}: '{name}' would have no parameters to learn; choose another network "
                "or set algorithm.shared_encoder=false"
            )
    return networks


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
