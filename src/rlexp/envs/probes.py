"""Five tiny environments whose values are known in closed form; an algorithm that errs on one has a bug there.

In each the best policy's value, and the value of every observation under it, follows by hand:

    1 constant reward               V(0) = 1
    2 value from the observation    V(o) = o, o is -1 or 1
    3 discounting over two steps    V(0) = gamma, V(1) = 1
    4 action-dependent reward       Q(a) = 1 for a = 1, -1 for a = 0
    5 both                          Q(o, a) = 1 where a matches the sign of o, else -1

With `continuous=True` actions are a in [-1, 1]; in 4 and 5 the rewards, and so Q, are a and o a.
"""

from typing import Any

import gymnasium
import numpy as np

IDS = {number: f"rlexp/Probe{number}-v0" for number in range(1, 6)}


class Probe(gymnasium.Env[np.ndarray, int]):
    """One of the five, by number."""

    def __init__(self, number: int, continuous: bool = False) -> None:
        self.number = number
        self.continuous = continuous
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(2)
        if continuous:
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._observation = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._observation = float(self.np_random.integers(2) * 2 - 1) if self.number in (2, 5) else 0.0
        return self._array(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.number == 3:
            ended = self._observation == 1.0
            self._observation = 1.0
            return self._array(), float(ended), ended, False, {}
        sign = float(action[0]) if self.continuous else 2.0 * action - 1.0
        reward = {1: 1.0, 2: self._observation, 4: sign, 5: sign * self._observation}[self.number]
        return self._array(), reward, True, False, {}

    def _array(self) -> np.ndarray:
        return np.array([self._observation], np.float32)


for _number, _id in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point="rlexp.envs.probes:Probe", kwargs={"number": _number}, max_episode_steps=10)
