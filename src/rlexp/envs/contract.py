"""What an environment owes: observations of its declared space, flags that are true or false.

A breach is found before anything is learned from it: NumPy would broadcast, round or convert it without a word.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from rlexp.errors import EnvironmentFailure
from rlexp.types import Box, Discrete, EnvSpec, Space

WIDTHS = 10.0
"""So many times the distance of its bounds a number may lie outside of them. Gymnasium's own LunarLander and
BipedalWalker leave theirs by a third of it; a number in a wrong unit leaves them by far more."""


class BrokenContract(Exception):
    """What an environment did that its spaces or Gymnasium's interface forbid, in words."""


class Overdue(BaseException):
    """A call of an environment passed its deadline. No `except Exception` of the environment's own takes it for one of
    its errors; the vector that called raises `failure` instead."""

    def __init__(self, failure: EnvironmentFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def compare_spaces(env: gymnasium.Env[Any, Any], spec: EnvSpec) -> None:
    """Raises BrokenContract where an environment's spaces are not those that were declared of it."""
    for name, declared in (("observation", spec.observation), ("action", spec.action)):
        space = getattr(env, f"{name}_space")
        if isinstance(declared, Box) and isinstance(space, gymnasium.spaces.Box) and space.shape != declared.shape:
            raise BrokenContract(f"its {name}s have the shape {space.shape}, declared is {declared.shape}")
        if isinstance(declared, Discrete) and isinstance(space, gymnasium.spaces.Discrete) and space.n != declared.n:
            raise BrokenContract(f"its {name}s are 0 to {space.n - 1}, declared is 0 to {declared.n - 1}")


def flag(value: Any, name: str) -> bool:
    """A truth value, also NumPy's and 0 or 1; raises BrokenContract for anything else."""
    if value is True or value is False:
        return bool(value)
    if not isinstance(value, np.bool_) and (np.ndim(value) or value not in (0, 1)):
        raise BrokenContract(f"{name} is {value!r}, neither true nor false")
    return bool(value)


class Observations:
    """Looks at the observations of B environments: at the shape of each one, at the numbers of many at once.

    The least and the most of each number are kept, which costs a microsecond a step for all environments together: NaN
    and infinity stay there, whenever in an episode they came.
    """

    def __init__(self, declared: Space, envs: Sequence[gymnasium.Env[Any, Any]]) -> None:
        self._shape = declared.shape
        self._n = declared.n if isinstance(declared, Discrete) else None
        self._least: np.ndarray = np.zeros((len(envs), *declared.shape), declared.dtype)
        self._most = self._least.copy()
        self._low, self._high = _wide_bounds(envs[0].observation_space, declared)

    def look(self, observed: Any) -> None:
        """At one of them; raises BrokenContract where it has another shape, or is no integer of the space."""
        if self._n is not None:
            if type(observed) is int and 0 <= observed < self._n:
                return
            if np.ndim(observed) or not 0 <= observed < self._n or observed != int(observed):
                raise BrokenContract(f"the observation is {observed!r}, not an integer from 0 to {self._n - 1}")
        elif getattr(observed, "shape", None) != self._shape and np.shape(observed) != self._shape:
            raise BrokenContract(f"the observation has the shape {np.shape(observed)}, declared is {self._shape}")

    def begin(self, i: int, observation: np.ndarray) -> None:
        """An episode of environment i begins with this one."""
        self._least[i] = self._most[i] = observation

    def take(self, observations: np.ndarray, active: np.ndarray | None) -> None:
        """[B, *O], of a step of those that are active, [B] bool, None for all."""
        if self._n is not None:
            return
        if active is None:
            np.minimum(self._least, observations, out=self._least)
            np.maximum(self._most, observations, out=self._most)
        else:
            self._least[active] = np.minimum(self._least[active], observations[active])
            self._most[active] = np.maximum(self._most[active], observations[active])

    def bad(self) -> list[int]:
        """Environments in whose episode a number was not finite or far outside the space."""
        if self._n is not None:
            return []
        good = (self._least >= self._low) & (self._most <= self._high)
        return [] if good.all() else np.flatnonzero(~good.reshape(len(good), -1).all(1)).tolist()

    def worst(self, i: int) -> tuple[str, float]:
        """Of a bad one: `observation[2] is nan`, and that number; one that is not finite before all others."""
        extremes = np.stack([self._least[i], self._most[i]])
        outside = ~((extremes >= self._low) & (extremes <= self._high))
        which = outside & ~np.isfinite(extremes)
        side, *place = np.argwhere(which if which.any() else outside)[0].tolist()
        value = float(extremes[(side, *place)])
        return f"observation{place or ''} is {value:.6g}", value


def _wide_bounds(space: gymnasium.Space[Any], declared: Space) -> tuple[Any, Any]:
    """[*O] twice, float32: the largest finite numbers where a bound is open."""
    most = np.finfo(np.float32).max
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != declared.shape:
        return -most, most
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = WIDTHS * (high - low)
        bounds = np.stack([low - np.maximum(beyond, _margin(low)), high + np.maximum(beyond, _margin(high))])
        bounds = np.where(np.isfinite(beyond), bounds, np.inf * np.array([-1, 1]).reshape(2, *[1] * low.ndim))
    return tuple(np.clip(bounds, -most, most).astype(np.float32))


def _margin(bound: np.ndarray) -> np.ndarray:
    """What rounding may add to a bound, whose distance to the other one may be zero: of a number that never changes."""
    margin: np.ndarray = 1e-3 * np.abs(bound) + 1e-6
    return margin
