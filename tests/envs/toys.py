"""Tiny environments that break a rule, or whose every number is known."""

import math
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from rlexp.types import Box, Discrete, EnvSpec


class Counter(gymnasium.Env[np.ndarray, int]):
    """The observation is (episode seed, step); the reward is the step. Ends itself after `ends_after` steps.

    `rewards` puts another reward at a step; at step `blind_at` the observation is NaN.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(
        self,
        ends_after: int = 10**9,
        cuts_after: int = 10**9,
        rewards: dict[int, float] | None = None,
        blind_at: int | None = None,
    ) -> None:
        self.ends_after, self.cuts_after, self.rewards, self.blind_at = ends_after, cuts_after, rewards or {}, blind_at
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        assert seed is not None
        self.seed, self.time = seed % 1000, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        reward = self.rewards.get(self.time, float(self.time))
        self.time += 1
        ended, cut = self.time >= self.ends_after, self.time >= self.cuts_after
        return self._observation(), reward, ended, cut, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.seed, math.nan if self.time == self.blind_at else self.time], np.float32)


class Awkward(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, part: str, state: str) -> None:
        super().__init__(f"the {part} is {state}")


def _raise() -> None:
    raise Awkward("motor", "hot")


FAULTS: dict[str, Callable[[], Any]] = {
    "raise": _raise,
    "sleep": lambda: time.sleep(1000),
    "spin": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),  # C code that keeps the interpreter for years
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
}


class Faulty(Counter):
    """Does something bad before step `at` of the episode with seed `seed`; in "make", "reset" or "step"."""

    def __init__(self, fault: str, seed: int = 100, at: int = 2, where: str = "step") -> None:
        super().__init__()
        self._fault, self._bad_seed, self._at, self._where = FAULTS[fault], seed, at, where
        if where == "make":
            self._fault()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if self._where == "reset" and seed == self._bad_seed:
            self._fault()
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._where == "step" and self.seed == self._bad_seed and self.time == self._at:
            self._fault()
        return super().step(action)


class Slow(Counter):
    """Takes a while for each step."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(0.1)
        return super().step(action)


def counter_spec(time_limit: int, action: Discrete | Box | None = None) -> EnvSpec:
    return EnvSpec("Counter", Box((2,)), action or Discrete(2), time_limit, False)


def simple_seed(i: int, k: int) -> int:
    """Episode k of environment i, legible in the observation."""
    return 100 * i + k
