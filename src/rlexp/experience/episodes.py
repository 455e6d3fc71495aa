"""Whole episodes of the present policy, used once: the experience of Monte Carlo algorithms."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NoReturn

import numpy as np
import torch

from rlexp.clock import Clock
from rlexp.envs.vector import Vector, check_finite
from rlexp.errors import ConfigError
from rlexp.experience.actor import Actor
from rlexp.experience.collector import episode_statistics
from rlexp.experience.normalization import Normaliser
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

    Stacked seeds share the vector: of S B environments the first B belong to the first seed, and so on. Each has a
    batch of its own length, and steps of its own; one that has reached the end, or is frozen, plays no more.
    """

    gives: ClassVar[str] = "episodes"
    finished: ClassVar[bool] = False
    owed: ClassVar[bool] = False
    in_step: ClassVar[bool] = False

    def __init__(
        self,
        vector: Vector,
        normaliser: Normaliser,
        clock: Clock,
        seeds: Sequence[int],
        *,
        num_episodes: Annotated[int, Range(1)],
        num_envs: Annotated[int, Range(1)],
    ) -> None:
        assert vector.num_envs == num_envs * len(seeds)
        self.env_steps_of = [0] * len(seeds)
        self._vector = vector
        self._normaliser = normaliser
        self._clock = clock
        self._own = [range(s * num_envs, (s + 1) * num_envs) for s in range(len(seeds))]  # environments of each seed
        self._streams = [Stream(seed, "acting", i) for seed in seeds for i in range(num_envs)]
        self._share = num_episodes // num_envs

    @property
    def env_steps(self) -> int:
        return min(self.env_steps_of)

    def next(self, actor: Actor, progress: Progress) -> Transition | list[Transition | None]:
        state = actor.state
        if not state.stacked:
            steps = self._normaliser.fresh(self._play(actor, progress, [True]))
            return self._batch(actor, steps, 0)
        going = zip(self.env_steps_of, state.frozen, strict=True)
        plays = [env_steps < progress.total_env_steps and not frozen for env_steps, frozen in going]
        steps = self._normaliser.fresh(self._play(actor, progress, plays))
        return [self._batch(actor, steps, index) if play else None for index, play in enumerate(plays)]

    def _play(self, actor: Actor, progress: Progress, plays: Sequence[bool]) -> dict[str, np.ndarray]:
        """Vector steps until the environments of the seeds that play have played their share, [K, S B, ...].

        "active" says who was stepped.
        """
        vector, clock, streams = self._vector, self._clock, self._streams
        alone = not actor.state.stacked
        before = clock.switch("act")
        vector.start()
        left = np.repeat(np.where(plays, self._share, 0), len(streams) // len(plays))
        active, counts = left > 0, np.zeros(len(streams), np.int64)
        noise = np.zeros((CHUNK, len(streams), actor.noise.size), np.float32)
        rows: list[tuple[np.ndarray, ...]] = []
        while active.any():
            time = vector.time.copy()
            for i in np.flatnonzero(active & (time % CHUNK == 0)).tolist():
                noise[:, i] = streams[i].noise(actor.noise, CHUNK)
            now = progress._replace(env_steps=self.env_steps + int(counts.sum())) if alone else APART
            observation = vector.observation.copy()
            action = actor(observation, noise[time % CHUNK, np.arange(len(streams))], now, explore=True)
            clock.switch("env")
            # A seed that is about to be frozen may act by NaN; what its environments get then must be legal.
            step = vector.step(action if alone else np.nan_to_num(action), active)
            clock.switch("act")
            rows.append((observation, action, time, active, *(column.copy() for column in step)))
            counts += active
            left = left - (active & (step.terminated + step.truncated > 0))
            active = left > 0
        if alone:
            check_finite(vector)  # of stacked seeds, the row of the one concerned shows it, and it alone is frozen
        for index, own in enumerate(self._own):
            self.env_steps_of[index] += int(counts[own].sum())
        clock.switch(before)
        names = ("observation", "action", "time", "active", "reward", "terminated", "truncated", "next_observation")
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def _batch(self, actor: Actor, steps: dict[str, np.ndarray], index: int) -> Transition:
        """The episodes of the seed at this place, with log pi(a|s) under the policy that played them."""
        own = slice(self._own[index].start, self._own[index].stop)
        mine = {name: column[:, own] for name, column in steps.items()}
        columns = {name: torch.from_numpy(column).to(actor.state.device) for name, column in _padded(mine).items()}
        batch = Transition(**columns)
        return batch._replace(log_prob=actor.log_prob(batch.observation, batch.action, index))

    def feedback(self, state: TrainState, update: Update) -> None:
        """A batch is used once; nothing depends on its update."""

    def statistics(self, index: int) -> dict[str, float]:
        finished = self._vector.drain_finished(self._own[index])
        return episode_statistics(finished) | self._normaliser.statistics(index)

    def state_dict(self) -> dict[str, Any]:
        return {
            "env_steps": list(self.env_steps_of),
            "vector": self._vector.state_dict(),
            "normaliser": self._normaliser.state_dict(),
            "streams": [stream.state_dict() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps_of = list(state["env_steps"])
        self._vector.load_state_dict(state["vector"])
        self._normaliser.load_state_dict(state["normaliser"])
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)


def _padded(steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From vector steps [K, B, ...] to padded episodes [T, num_episodes, ...], those of an environment together."""
    columns = {name: column for name, column in steps.items() if name != "active"}
    places = []
    for i in range(steps["active"].shape[1]):
        active, time = steps["active"][:, i], steps["time"][:, i]
        starts = np.flatnonzero(active & (time == 0))
        stops = [*starts[1:].tolist(), int(active.sum())]  # it plays from the first step on, and then it waits
        places += [(start, stop, i) for start, stop in zip(starts.tolist(), stops, strict=True)]
    longest = max(stop - start for start, stop, _ in places)
    shape = (-(-longest // CHUNK) * CHUNK, len(places))
    valid = np.zeros(shape, np.float32)
    padded = {name: np.zeros((*shape, *column.shape[2:]), column.dtype) for name, column in columns.items()}
    for n, (start, stop, i) in enumerate(places):
        valid[: stop - start, n] = 1
        for name, column in columns.items():
            padded[name][: stop - start, n] = column[start:stop, i]
    return padded | {"valid": valid}


class _Apart:
    """In place of the progress of a policy that acts for seeds which are not equally far: it must not ask for it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(
            f"algorithm: it acts by the run's {name}, in which seeds of whole episodes differ; train each in a process "
            "of its own, -m seed=0,1,2"
        )


APART: Any = _Apart()
