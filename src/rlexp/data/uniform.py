"""A ring of transitions; sequences of one length are drawn, each with the same probability."""

from typing import Any

import numpy as np
import torch

from rlexp.streams import Stream
from rlexp.types import EnvSpec, Transition

COLUMNS = ("observation", "action", "reward", "terminated", "truncated", "next_observation", "time")


class UniformBuffer:
    """The last `capacity` transitions, in memory of this process.

    Observations are stored beside their true successors: twice the memory of a shared column, and right at every end
    of an episode without a special case. `num_envs` environments are interleaved: the next step of one lies that many
    places further.
    """

    def __init__(self, spec: EnvSpec, capacity: int, num_envs: int) -> None:
        self.capacity = capacity
        self._num_envs = num_envs
        self.size = 0
        self._next = 0
        observation = (capacity, *spec.observation.shape)
        self._columns: dict[str, np.ndarray] = {
            "observation": np.zeros(observation, spec.observation.dtype),
            "action": np.zeros((capacity, *spec.action.shape), spec.action.dtype),
            "reward": np.zeros(capacity, np.float32),
            "terminated": np.zeros(capacity, np.float32),
            "truncated": np.zeros(capacity, np.float32),
            "next_observation": np.zeros(observation, spec.observation.dtype),
            "time": np.zeros(capacity, np.int64),
        }

    def add(self, segment: dict[str, np.ndarray]) -> None:
        """Append [T, B, ...], in the order of time; the oldest are overwritten."""
        count = segment["reward"].size
        if count > self.capacity:
            raise ValueError(f"{count} transitions do not fit a buffer of {self.capacity}")
        place = np.arange(self._next, self._next + count) % self.capacity
        for name, column in self._columns.items():
            column[place] = segment[name].reshape(count, *column.shape[1:])
        self._next = (self._next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, batch_size: int, length: int, stream: Stream, device: torch.device) -> Transition:
        """[length, batch_size, ...], with replacement: successive steps of one environment.

        A sequence may run over an episode's end into the next one; `terminated` and `truncated` say where. Those that
        would reach beyond the newest step are not drawn, so `size` must be at least `length` times `num_envs`.
        """
        beyond = (length - 1) * self._num_envs
        first = (self._next - self.size + stream.integers(self.size - beyond, batch_size)) % self.capacity
        index = (first + np.arange(0, beyond + 1, self._num_envs)[:, None]) % self.capacity
        return Transition(*(torch.from_numpy(self._columns[name].take(index, 0)).to(device) for name in COLUMNS))

    def state_dict(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "next": self._next,
            "columns": {name: column[: self.size] for name, column in self._columns.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.size, self._next = state["size"], state["next"]
        for name, column in self._columns.items():
            column[: self.size] = state["columns"][name]
