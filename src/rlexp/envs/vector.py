"""Several environments as one: the protocol, and what every vector gives and is made of.

Episode k of environment i is reset with a seed that depends on (run seed, i, k) alone, so the number of environments
does not reshuffle their episodes, and a checkpoint needs only that seed and the actions since the reset: resuming plays
them again and compares the observation. The successor of a step is never the observation after a reset. Every vector
takes the seeds, keeps the state and gives the numbers of SyncVector (envs/sync.py), bit for bit: a run may continue on
another one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from rlexp.errors import NonFiniteError
from rlexp.types import EnvSpec

EpisodeSeed = Callable[[int, int], int]


class Step(NamedTuple):
    """Arrays of one vector step; they are reused by the next."""

    reward: np.ndarray  # [B] float32
    terminated: np.ndarray  # [B] float32, 0 or 1
    truncated: np.ndarray  # [B] float32, 0 or 1
    successor: np.ndarray  # [B, *O]


class Episode(NamedTuple):
    """A finished episode. `episode_return` is the undiscounted sum."""

    env: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    seed: int
    episode_return: float
    length: int


class NotFinite(NamedTuple):
    """A return or an observation that is NaN or infinite."""

    env: int
    seed: int  # of the episode
    step: int  # before which it was seen
    what: str  # such as `observation[2] is nan`

    def describe(self, spec: EnvSpec) -> str:
        return (
            f"{spec.id}: a reward or observation is not finite: {self.what}; environment {self.env}, "
            f"episode seed {self.seed}, before step {self.step}; check the environment"
        )


class Vector(Protocol):
    """B environments, each with a stream of its own. `observation` and `time` are those before the next step."""

    spec: EnvSpec
    num_envs: int
    observation: np.ndarray  # [B, *O]
    time: np.ndarray  # [B] int64, step within the episode
    finished: list[Episode]  # since the last drain
    inexact: list[int]  # environments whose replay after loading did not match

    def start(self) -> None: ...
    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> Step: ...  # active: [B] bool, None: all
    def not_finite(self) -> list["NotFinite"]: ...
    def drain_finished(self, envs: range | None = None) -> list[Episode]: ...  # of these environments, None: of all
    def close(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def drained(finished: list[Episode], envs: range | None) -> tuple[list[Episode], list[Episode]]:
    """The finished episodes of some environments, and those that are left."""
    if envs is None:
        return finished, []
    return [e for e in finished if e.env in envs], [e for e in finished if e.env not in envs]


def check_finite(vector: Vector) -> None:
    """Raises NonFiniteError where a return or an observation was NaN or infinite.

    Not `step` raises it: of stacked seeds the others go on.
    """
    for found in vector.not_finite():
        raise NonFiniteError(found.describe(vector.spec))


class Arrays(NamedTuple):
    """What a vector writes its numbers into."""

    observation: np.ndarray
    time: np.ndarray
    step: Step


def make_arrays(spec: EnvSpec, num_envs: int) -> Arrays:
    shape, dtype = (num_envs, *spec.observation.shape), spec.observation.dtype
    reward, terminated, truncated = np.zeros((3, num_envs), np.float32)
    step = Step(reward, terminated, truncated, np.zeros(shape, dtype))
    return Arrays(np.zeros(shape, dtype), np.zeros(num_envs, np.int64), step)
