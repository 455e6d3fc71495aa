"""Whole episodes of the present policy, used once: the experience of Monte Carlo algorithms."""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from rlexp.clock import Clock
from rlexp.envs.vector import SyncVector
from rlexp.experience.actor import Actor
from rlexp.experience.collector import episode_statistics
from rlexp.ranges import Range
from rlexp.state import TrainState
from rlexp.streams import Stream
from rlexp.types import Progress, Transition, Update

CHUNK = 64
"""Steps. Padded lengths are multiples of it, so that compiled code sees few shapes; noise is drawn for as many."""


class Episodes:
    """`num_episodes` whole episodes a batch, [T, num_episodes, ...], a column each, padded with zeros (`valid` is 0).

    Each environment plays its share, `num_episodes / num_envs`, one after the other, and then waits for those beside
    it. To take the episodes that end first would prefer short ones; to let the others go on meanwhile would leave
    episodes that an older policy began. So every episode that begins is played to its end by one policy, stands in one
    batch and counts the steps it has. A run ends with the first batch that reaches `total_env_steps`.
    """

    gives: ClassVar[str] = "episodes"
    finished: ClassVar[bool] = False
    owed: ClassVar[bool] = False

    def __init__(
        self,
        vector: SyncVector,
        clock: Clock,
        seed: int,
        *,
        num_episodes: Annotated[int, Range(1)],
        num_envs: Annotated[int, Range(1)],
    ) -> None:
        assert vector.num_envs == num_envs
        self.env_steps = 0
        self._vector = vector
        self._clock = clock
        self._streams = [Stream(seed, "acting", i) for i in range(num_envs)]
        self._share = num_episodes // num_envs

    def next(self, actor: Actor, progress: Progress) -> Transition:
        before = self._clock.switch("act")
        steps = self._play(actor, progress)
        self._clock.switch(before)
        device = actor.state.device
        columns = {name: torch.from_numpy(column).to(device) for name, column in self._columns(steps).items()}
        batch = Transition(**columns)
        return batch._replace(log_prob=actor.log_prob(batch.observation, batch.action))

    def _play(self, actor: Actor, progress: Progress) -> dict[str, np.ndarray]:
        """Vector steps until every environment has played its share, [K, B, ...]; "active" says who was stepped."""
        vector, clock, streams = self._vector, self._clock, self._streams
        vector.start()
        left = np.full(vector.num_envs, self._share)
        active = left > 0
        noise = np.zeros((CHUNK, vector.num_envs, actor.noise.size), np.float32)
        rows: list[tuple[np.ndarray, ...]] = []
        with torch.inference_mode():
            while active.any():
                time = vector.time.copy()
                for i in np.flatnonzero(active & (time % CHUNK == 0)).tolist():
                    noise[:, i] = streams[i].noise(actor.noise, CHUNK)
                now = progress._replace(env_steps=self.env_steps)
                observation = vector.observation.copy()
                action = actor(observation, noise[time % CHUNK, np.arange(vector.num_envs)], now, explore=True)
                clock.switch("env")
                step = vector.step(action, active)
                clock.switch("act")
                rows.append((observation, action, time, active, *(column.copy() for column in step)))
                self.env_steps += int(active.sum())
                left = left - (active & (step.terminated + step.truncated > 0))
                active = left > 0
        vector.check_finite()
        names = ("observation", "action", "time", "active", "reward", "terminated", "truncated", "next_observation")
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def _columns(self, steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """From vector steps [K, B, ...] to padded episodes [T, num_episodes, ...], those of an environment together."""
        active = steps.pop("active")
        places = []
        for i in range(active.shape[1]):
            starts = np.flatnonzero(active[:, i] & (steps["time"][:, i] == 0))
            stops = [*starts[1:].tolist(), int(active[:, i].sum())]
            places += [(start, stop, i) for start, stop in zip(starts.tolist(), stops, strict=True)]
        longest = max(stop - start for start, stop, _ in places)
        shape = (-(-longest // CHUNK) * CHUNK, len(places))
        valid = np.zeros(shape, np.float32)
        padded = {name: np.zeros((*shape, *column.shape[2:]), column.dtype) for name, column in steps.items()}
        for n, (start, stop, i) in enumerate(places):
            valid[: stop - start, n] = 1
            for name, column in steps.items():
                padded[name][: stop - start, n] = column[start:stop, i]
        return padded | {"valid": valid}

    def feedback(self, state: TrainState, update: Update) -> None:
        """A batch is used once; nothing depends on its update."""

    def statistics(self) -> list[dict[str, float]]:
        return [episode_statistics(self._vector.drain_finished())]

    def state_dict(self) -> dict[str, Any]:
        return {
            "env_steps": self.env_steps,
            "vector": self._vector.state_dict(),
            "streams": [stream.state_dict() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps = state["env_steps"]
        self._vector.load_state_dict(state["vector"])
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)
