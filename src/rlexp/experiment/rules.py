"""Pairs of settings that cannot work, each a named rule; all are checked before anything is made.

A rule takes the checked configuration, the environment's spec and the resolved parts' classes, and answers with what is
wrong and what to do, or None. docs/rules.md lists them, from here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rlexp.envs.cartpole import is_cartpole
from rlexp.experiment.intervals import INTERVALS
from rlexp.experiment.schema import given_fields
from rlexp.networks.torso import observation_kind
from rlexp.types import Box, EnvSpec


class Choice(NamedTuple):
    """What a rule looks at. `algorithm`, `experience`, ... are classes or functions, None where the group is `none`."""

    config: Mapping[str, Any]
    spec: EnvSpec
    algorithm: Any
    experience: Any
    estimator: Any
    network: Any


def action_space(c: Choice) -> str | None:
    """The algorithm acts in another kind of action space than the environment has."""
    if c.spec.action.kind in c.algorithm.actions:
        return None
    return (
        f"{c.algorithm.__name__} needs {' or '.join(sorted(c.algorithm.actions))} actions, {c.spec.id} has "
        f"{c.spec.action.kind} ones; choose another algorithm or env"
    )


def bounded_actions(c: Choice) -> str | None:
    """The algorithm squashes actions into bounds; the environment's have none, or other ones in each dimension."""
    action = c.spec.action
    if "squashed_policy" not in given_fields(c.algorithm) or not isinstance(action, Box):
        return None
    if math.isfinite(action.low) and math.isfinite(action.high):
        return None
    return (
        f"{c.algorithm.__name__} needs actions between one finite low and one finite high, {c.spec.id} has none; "
        "rescale its actions or choose another algorithm"
    )


def experience_kind(c: Choice) -> str | None:
    """The algorithm learns from another kind of batch than the experience gives."""
    if c.algorithm.learns_from == c.experience.gives:
        return None
    return (
        f"{c.algorithm.__name__} learns from experience={c.algorithm.learns_from}, not {c.experience.gives}; "
        f"set experience={c.algorithm.learns_from}"
    )


def needs_model(c: Choice) -> str | None:
    """A sweep needs a finite model, which the environment does not have."""
    if c.experience.gives != "sweep" or c.spec.has_model:
        return None
    return f"{c.algorithm.__name__} sweeps over a finite model and {c.spec.id} has none; try env=frozen_lake"


def seeds_of_a_sweep(c: Choice) -> str | None:
    """Several seeds of what draws nothing at random."""
    if c.experience.gives != "sweep" or c.config["seeds"] is None:
        return None
    return (
        f"{c.algorithm.__name__} draws nothing at random: all of seeds={c.config['seeds']} would be equal; leave it out"
    )


def normalised_experience(c: Choice) -> str | None:
    """Normalisation of nothing, by an experience that does not normalise, or of rewards without a discount."""
    normalization = c.config["normalization"]
    if normalization is None:
        return None
    if "normaliser" not in given_fields(c.experience):
        return f"experience {c.experience.__name__} does not normalise what it gives; set normalization=none"
    if {"observation_clip": None, "reward_clip": None}.items() <= normalization.items():
        return "observation_clip and reward_clip are both null: nothing is normalised; set one, or normalization=none"
    if normalization.get("reward_clip") is not None and "gamma" not in c.config["algorithm"]:
        return (
            f"rewards are scaled by the discounted return and {c.algorithm.__name__} has no gamma; "
            "set normalization.reward_clip=null"
        )
    return None


def normalised_observation(c: Choice) -> str | None:
    """Observations are to be normalised and are integers that stand for states, or images, which have bounds."""
    normalization, kind = c.config["normalization"], observation_kind(c.spec.observation)
    if normalization is None or normalization.get("observation_clip") is None or kind not in ("discrete", "image"):
        return None
    why = "integers that stand for states" if kind == "discrete" else "images, which the network scales by their bounds"
    return f"{c.spec.id} observes {why}; set normalization=rewards or none"


def needed_part(c: Choice) -> str | None:
    """The algorithm needs a part that is `none`."""
    for group in sorted(c.algorithm.needs):
        if c.config[group] is None:
            return f"{c.algorithm.__name__} needs {group}, which is none; choose {group}=..."
    return None


def unused_part(c: Choice) -> str | None:
    """A part is chosen that the algorithm does not use: it would have no effect."""
    used = c.algorithm.needs | getattr(c.algorithm, "optional", frozenset())
    for group in ("estimator", "baseline", "exploration", "network", "optimizer"):
        if c.config[group] is not None and group not in used:
            return f"{c.algorithm.__name__} does not use {group}; set {group}=none"
    return None


def estimator_input(c: Choice) -> str | None:
    """The estimator must be given a kind of value that the algorithm does not have."""
    if c.estimator is None or "estimator" not in c.algorithm.needs:
        return None
    kind = getattr(c.estimator, "of", None)
    if kind in c.algorithm.gives:
        return None
    return (
        f"estimator {c.estimator.__name__} needs {kind or 'an undeclared kind of value'}, {c.algorithm.__name__} gives "
        f"{', '.join(sorted(c.algorithm.gives))}; choose another estimator"
    )


def estimator_horizon(c: Choice) -> str | None:
    """An n-step estimator looks further than the rollout or the replayed sequence is long."""
    n = _get(c, "estimator", "n_step")
    for key in ("rollout_length", "sequence_length"):
        length = _get(c, "experience", key)
        if n is not None and length is not None and n > length:
            return f"estimator.n_step={n} is more than experience.{key}={length}; lower the first or raise the second"
    return None


def network_input(c: Choice) -> str | None:
    """The network does not take the environment's kind of observation."""
    if c.network is None:
        return None
    kind = observation_kind(c.spec.observation)
    if kind in c.network.takes:
        return None
    return (
        f"network {c.network.__name__} takes {' or '.join(sorted(c.network.takes))} observations, {c.spec.id} gives "
        f"{kind} ones; choose another network or env"
    )


def minibatches(c: Choice) -> str | None:
    """The samples of a rollout do not divide into minibatches."""
    count, length = _get(c, "algorithm", "num_minibatches"), _get(c, "experience", "rollout_length")
    if count is None or length is None:
        return None
    samples = length * c.config["experience"]["num_envs"]
    if samples % count == 0 and samples // count > 1:
        return None
    return (
        f"a rollout has {samples} samples (experience.rollout_length={length} x experience.num_envs="
        f"{c.config['experience']['num_envs']}), which do not divide into algorithm.num_minibatches={count} of two or "
        "more samples; change one of them"
    )


def rollout_fits(c: Choice) -> str | None:
    """One rollout is longer than the whole run."""
    length, num_envs = _get(c, "experience", "rollout_length"), _get(c, "experience", "num_envs")
    if length is None or length * num_envs <= c.config["total_env_steps"]:
        return None
    return (
        f"one rollout of {length} x {num_envs} steps is longer than total_env_steps={c.config['total_env_steps']}; "
        "lower experience.rollout_length or experience.num_envs"
    )


def episodes_divide(c: Choice) -> str | None:
    """The episodes of a batch do not divide among the environments, each of which plays its share."""
    episodes, num_envs = _get(c, "experience", "num_episodes"), _get(c, "experience", "num_envs")
    if episodes is None or episodes % num_envs == 0:
        return None
    return f"experience.num_episodes={episodes} does not divide by experience.num_envs={num_envs}; change one of them"


def batch_fits_buffer(c: Choice) -> str | None:
    """A batch is larger than the buffer it is drawn from."""
    batch, capacity = _get(c, "experience", "batch_size"), _get(c, "experience", "capacity")
    if batch is None or capacity is None or batch <= capacity:
        return None
    return f"experience.batch_size={batch} is larger than experience.capacity={capacity}; raise the capacity"


def collection_divides(c: Choice) -> str | None:
    """Collected steps do not divide among the environments."""
    steps, num_envs = _get(c, "experience", "collection_steps"), _get(c, "experience", "num_envs")
    if steps is None or steps % num_envs == 0:
        return None
    return f"experience.collection_steps={steps} does not divide by experience.num_envs={num_envs}"


def collection_fits_buffer(c: Choice) -> str | None:
    """More is collected at a time than the buffer holds."""
    steps, capacity = _get(c, "experience", "collection_steps"), _get(c, "experience", "capacity")
    if steps is None or capacity is None or steps <= capacity:
        return None
    return f"experience.collection_steps={steps} is more than experience.capacity={capacity}; raise the capacity"


def sequence_fits_buffer(c: Choice) -> str | None:
    """The buffer holds less than one sequence of each environment."""
    length, capacity = _get(c, "experience", "sequence_length"), _get(c, "experience", "capacity")
    if length is None or capacity is None or length * c.config["experience"]["num_envs"] <= capacity:
        return None
    return (
        f"experience.sequence_length={length} of {c.config['experience']['num_envs']} environments is more than "
        f"experience.capacity={capacity}; raise the capacity"
    )


def learning_starts_in_time(c: Choice) -> str | None:
    """Learning would start after the buffer is full or the run is over."""
    starts, capacity = _get(c, "experience", "learning_starts"), _get(c, "experience", "capacity")
    total = c.config["total_env_steps"]
    if starts is None or (starts <= total and (capacity is None or starts <= capacity)):
        return None
    return (
        f"experience.learning_starts={starts} must be at most experience.capacity={capacity} and "
        f"total_env_steps={total}; lower it"
    )


def interval_fits(c: Choice) -> str | None:
    """An interval is longer than the run."""
    total = c.config["total_env_steps"]
    for group in INTERVALS:
        interval = (c.config[group] or {}).get("interval")
        if interval is not None and interval > total:
            return (
                f"{group}.interval={interval} is longer than the run, total_env_steps={total}; lower it, or set it to "
                "null for a part of the run"
            )
    return None


def numpy_vector(c: Choice) -> str | None:
    """The NumPy vector is chosen for another environment than CartPole-v1 without arguments."""
    env = c.config["env"]
    if c.config["execution"]["vector"] != "numpy" or is_cartpole(env["id"], env["kwargs"]):
        return None
    what = f"{env['id']} with env.kwargs={env['kwargs']}" if env["kwargs"] else env["id"]
    return f"execution.vector=numpy knows CartPole-v1 without arguments alone, not {what}; set execution.vector=auto"


def unused_workers(c: Choice) -> str | None:
    """A number of workers is chosen and the environments stay in the run's own process: it would have no effect."""
    execution = c.config["execution"]
    if execution["workers"] is None or execution["vector"] == "async":
        return None
    return (
        f"execution.workers={execution['workers']} has no effect with execution.vector={execution['vector']}; set "
        "execution.vector=async or leave it out"
    )


def compiled_seeds(c: Choice) -> str | None:
    """Updates of stacked seeds are to be compiled: torch.compile does not look into functions that are mapped."""
    if not c.config["execution"]["compile"] or c.config["seeds"] is None:
        return None
    return "execution.compile=true is for one seed; take seed= in place of seeds=, or leave it out"


def compiled_episodes(c: Choice) -> str | None:
    """Updates by whole episodes are to be compiled: each batch has a shape of its own, for which it would be anew."""
    if not c.config["execution"]["compile"] or c.experience.in_step:
        return None
    return f"execution.compile=true is for batches of one shape, not for {c.experience.__name__}; leave it out"


RULES: tuple[Callable[[Choice], str | None], ...] = (
    action_space,
    bounded_actions,
    experience_kind,
    needs_model,
    seeds_of_a_sweep,
    normalised_experience,
    normalised_observation,
    needed_part,
    unused_part,
    estimator_input,
    estimator_horizon,
    network_input,
    minibatches,
    rollout_fits,
    episodes_divide,
    batch_fits_buffer,
    collection_divides,
    collection_fits_buffer,
    sequence_fits_buffer,
    learning_starts_in_time,
    interval_fits,
    numpy_vector,
    unused_workers,
    compiled_seeds,
    compiled_episodes,
)

SPACE_RULES = frozenset({"action_space", "bounded_actions", "needs_model", "normalised_observation", "network_input"})
"""Rules that look at the environment's spaces: they come last where a probe must be started for them."""


def _get(c: Choice, group: str, key: str) -> Any:
    return (c.config[group] or {}).get(key)
