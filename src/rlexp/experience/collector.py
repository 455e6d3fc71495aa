"""Steps a vector of environments with an actor and hands out what came, as arrays [T, B, ...].

Stacked seeds share the vector: of S B environments the first B belong to the first seed, and so on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlexp.clock import Clock
from rlexp.envs.vector import Episode, Vector, check_finite
from rlexp.experience.actor import Actor
from rlexp.streams import Stream
from rlexp.types import Box, Progress


class Collector:
    """Owns the vector and the stream "acting". One set of arrays is reused: a caller keeps copies of what it keeps."""

    def __init__(self, vector: Vector, seeds: Sequence[int], clock: Clock) -> None:
        self.vector = vector
        self.num_envs = vector.num_envs // len(seeds)
        self.env_steps = 0  # of each seed
        self._clock = clock
        self._streams = [Stream(seed, "acting", i) for seed in seeds for i in range(self.num_envs)]
        self._segment: dict[str, np.ndarray] = {}

    def collect(self, actor: Actor, progress: Progress, num_steps: int) -> dict[str, np.ndarray]:
        """`num_steps` steps of every environment."""
        vector, clock = self.vector, self._clock
        vector.start()
        segment = self._arrays(num_steps)
        observation, action, reward, terminated, truncated, next_observation, time = segment.values()
        noise = np.stack([stream.noise(actor.noise, num_steps) for stream in self._streams], 1)  # [T, B, size]
        before = clock.switch("act")
        # A seed that is frozen, or about to be, may act by NaN; what its environments get then must be legal.
        mend = actor.state.stacked and isinstance(vector.spec.action, Box)
        env_steps, updates, total_env_steps = progress
        for t in range(num_steps):
            observation[t], time[t] = vector.observation, vector.time
            now = Progress(env_steps + t * self.num_envs, updates, total_env_steps)
            action[t] = chosen = actor(vector.observation, noise[t], now, explore=True)
            if mend:
                chosen = np.nan_to_num(chosen)
            clock.switch("env")
            reward[t], terminated[t], truncated[t], next_observation[t] = vector.step(chosen)
            clock.switch("act")
        if actor.state.stacked:
            vector.not_finite()  # noted: the row of the seed concerned shows it, and it alone is frozen
        else:
            check_finite(vector)
        self.env_steps += num_steps * self.num_envs
        clock.switch(before)
        return segment

    def _arrays(self, num_steps: int) -> dict[str, np.ndarray]:
        if not self._segment or len(self._segment["reward"]) != num_steps:
            vector = self.vector
            shape = (num_steps, vector.num_envs)
            observation, action = vector.spec.observation, vector.spec.action
            self._segment = {
                "observation": np.zeros((*shape, *observation.shape), observation.dtype),
                "action": np.zeros((*shape, *action.shape), action.dtype),
                "reward": np.zeros(shape, np.float32),
                "terminated": np.zeros(shape, np.float32),
                "truncated": np.zeros(shape, np.float32),
                "next_observation": np.zeros((*shape, *observation.shape), observation.dtype),
                "time": np.zeros(shape, np.int64),
            }
        return self._segment

    def statistics(self, index: int) -> dict[str, float]:
        """Means over the episodes of a seed that ended since it was last asked for; nothing where none did."""
        own = range(index * self.num_envs, (index + 1) * self.num_envs)
        return episode_statistics(self.vector.drain_finished(own))

    def state_dict(self) -> dict[str, Any]:
        return {
            "env_steps": self.env_steps,
            "vector": self.vector.state_dict(),
            "streams": [stream.state_dict() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps = state["env_steps"]
        self.vector.load_state_dict(state["vector"])
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)


def episode_statistics(episodes: list[Episode]) -> dict[str, float]:
    """Mean return, length and reward per step of finished episodes."""
    if not episodes:
        return {}
    total, steps = sum(e.episode_return for e in episodes), sum(e.length for e in episodes)
    return {
        "episode/return": total / len(episodes),
        "episode/length": steps / len(episodes),
        "episode/reward_per_step": total / steps,
        "episode/count": float(len(episodes)),
    }
