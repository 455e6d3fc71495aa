"""Tiny environments that break a rule, or whose every number is known."""

import math
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


def counter_spec(time_limit: int, action: Discrete | Box | None = None) -> EnvSpec:
    return EnvSpec("Counter", Box((2,)), action or Discrete(2), time_limit, False)


def simple_seed(i: int, k: int) -> int:
    """Episode k of environment i, legible in the observation."""
    return 100 * i + k
