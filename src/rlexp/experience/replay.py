"""Past data, drawn again and again: the experience of off-policy algorithms.

Three processes at rates of their own (V12): collection fills the buffer, regression draws from it, and the algorithm
moves its target network.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from rlexp.clock import Clock
from rlexp.data.uniform import UniformBuffer
from rlexp.experience.actor import Actor
from rlexp.experience.collector import Collector
from rlexp.experience.normalization import Normaliser
from rlexp.ranges import Range
from rlexp.state import TrainState
from rlexp.streams import Stream
from rlexp.types import Progress, Transition, Update


class Replay:
    """Turns of `collection_steps` new transitions and `updates_per_collection` batches from the last `capacity`.

    A batch is [*S, sequence_length, batch_size, ...]: 1 for one-step targets, n for n-step ones. The first comes once
    `learning_starts` transitions are in, and a sequence. All counts are transitions, not vector steps.
    """

    gives: ClassVar[str] = "replay"
    finished: ClassVar[bool] = False
    in_step: ClassVar[bool] = True

    def __init__(
        self,
        collector: Collector,
        normaliser: Normaliser,
        clock: Clock,
        seeds: Sequence[int],
        *,
        num_envs: Annotated[int, Range(1)],
        capacity: Annotated[int, Range(1)],
        batch_size: Annotated[int, Range(1)],
        sequence_length: Annotated[int, Range(1)],
        learning_starts: Annotated[int, Range(0)],
        collection_steps: Annotated[int, Range(1)],
        updates_per_collection: Annotated[int, Range(1)],
    ) -> None:
        self._collector = collector
        self._normaliser = normaliser
        self._clock = clock
        self._streams = [Stream(seed, "replay") for seed in seeds]
        self._buffer = UniformBuffer(collector.vector.spec, capacity, num_envs, len(seeds))
        self._batch_size = batch_size
        self._sequence_length = sequence_length
        self._starts = max(learning_starts, sequence_length * num_envs)
        self._steps = collection_steps // num_envs
        self._updates_per_collection = updates_per_collection
        self._owed = 0

    @property
    def env_steps(self) -> int:
        return self._collector.env_steps

    @property
    def owed(self) -> bool:
        return self._owed > 0

    def next(self, actor: Actor, progress: Progress) -> Transition | None:
        if not self.owed:
            segment = self._collector.collect(actor, progress, self._steps)
            self._buffer.add(segment)
            self._normaliser.learn(segment)
            if self._collector.env_steps < self._starts:
                return None
            self._owed = self._updates_per_collection
        self._owed -= 1
        before = self._clock.switch("sample")
        raw = self._buffer.sample(self._batch_size, self._sequence_length, self._streams, actor.state.device)
        batch = self._normaliser.drawn(raw)
        if not actor.state.stacked:
            batch = Transition(*(column if column is None else column[0] for column in batch))  # type: ignore[arg-type]
        self._clock.switch(before)
        return batch

    def feedback(self, state: TrainState, update: Update) -> None:
        """Uniform replay does not order its samples."""

    def statistics(self, index: int) -> dict[str, float]:
        collected = self._collector.statistics(index) | self._normaliser.statistics(index)
        return {**collected, "replay/size": float(self._buffer.size)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "collector": self._collector.state_dict(),
            "normaliser": self._normaliser.state_dict(),
            "buffer": self._buffer.state_dict(),
            "streams": [stream.state_dict() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._collector.load_state_dict(state["collector"])
        self._normaliser.load_state_dict(state["normaliser"])
        self._buffer.load_state_dict(state["buffer"])
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)
