"""A ring of transitions; sequences of one length are drawn, each with the same probability."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlexp.streams import Stream
from rlexp.types import EnvSpec, Transition

COLUMNS = ("observation", "action", "reward", "terminated", "truncated", "next_observation", "time")


def layout(spec: EnvSpec) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of one transition's part of each column."""
    observation = (spec.observation.shape, np.dtype(spec.observation.dtype))
    return {
        "observation": observation,
        "action": (spec.action.shape, np.dtype(spec.action.dtype)),
        "reward": ((), np.dtype(np.float32)),
        "terminated": ((), np.dtype(np.float32)),
        "truncated": ((), np.dtype(np.float32)),
        "next_observation": observation,
        "time": ((), np.dtype(np.int64)),
    }


def bytes_of_transition(spec: EnvSpec) -> int:
    """In memory and in a checkpoint."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout(spec).values())


class UniformBuffer:
    """The last `capacity` transitions of each seed, in memory of this process.

    Observations are stored beside their true successors: twice the memory of a shared column, and right at every end
    of an episode without a special case. `num_envs` environments are interleaved: the next step of one lies that many
    places further. Each seed has a ring of its own; all turn alike.
    """

    def __init__(self, spec: EnvSpec, capacity: int, num_envs: int, num_seeds: int = 1) -> None:
        self.capacity = capacity
        self.size = 0  # of each seed
        self._num_envs = num_envs
        self._offset = capacity * np.arange(num_seeds)
        self._next = 0
        places = capacity * num_seeds
        self._columns = {name: np.zeros((places, *shape), dtype) for name, (shape, dtype) in layout(spec).items()}

    def add(self, segment: dict[str, np.ndarray]) -> None:
        """Append [T, S B, ...], in the order of time; the oldest are overwritten."""
        num_seeds = len(self._offset)
        length = len(segment["reward"])
        count = segment["reward"].size // num_seeds
        if count > self.capacity:
            raise ValueError(f"{count} transitions do not fit a buffer of {self.capacity}")
        # [T, S, B], as the segment lies
        place = (self._next + np.arange(count).reshape(length, 1, -1)) % self.capacity + self._offset[:, None]
        for name, column in self._columns.items():
            column[place.ravel()] = segment[name].reshape(-1, *column.shape[1:])
        self._next = (self._next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, batch_size: int, length: int, streams: Sequence[Stream], device: torch.device) -> Transition:
        """[S, length, batch_size, ...], with replacement: successive steps of one environment; a stream for each seed.

        A sequence may run over an episode's end into the next one; `terminated` and `truncated` say where. Those that
        would reach beyond the newest step are not drawn, so `size` must be at least `length` times `num_envs`.
        """
        beyond = (length - 1) * self._num_envs
        drawn = np.stack([stream.integers(self.size - beyond, 1, batch_size) for stream in streams])  # [S, 1, batch]
        step = np.arange(0, beyond + 1, self._num_envs)[:, None]
        index = (self._next - self.size + drawn + step) % self.capacity + self._offset[:, None, None]
        columns = [torch.from_numpy(self._columns[name].take(index, 0)) for name in COLUMNS]
        return Transition(*(columns if device.type == "cpu" else [column.to(device) for column in columns]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "next": self._next,
            "columns": {name: column[self._filled()] for name, column in self._columns.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, before it takes any memory, where the saved buffer was larger."""
        size, place = state["size"], state["next"]
        if not (0 <= size <= self.capacity and 0 <= place < self.capacity):
            raise ValueError(f"{size} transitions, the next at {place}, do not fit a buffer of {self.capacity}")
        self.size, self._next = size, place
        for name, column in self._columns.items():
            column[self._filled()] = state["columns"][name]

    def _filled(self) -> np.ndarray:
        """The places that hold a transition: the ring is filled from its start."""
        return (self._offset[:, None] + np.arange(self.size)).ravel()
