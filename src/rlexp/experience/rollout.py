"""Fresh data of a fixed length, used once: the experience of on-policy algorithms."""

from typing import Annotated, Any, ClassVar

import torch

from rlexp.experience.actor import Actor
from rlexp.experience.collector import Collector
from rlexp.experience.normalization import Normaliser
from rlexp.ranges import Range
from rlexp.state import TrainState
from rlexp.types import Progress, Transition, Update


class Rollout:
    """`rollout_length` steps of each of `num_envs` environments a batch, [*S, rollout_length, num_envs, ...]."""

    gives: ClassVar[str] = "rollout"
    finished: ClassVar[bool] = False
    owed: ClassVar[bool] = False
    in_step: ClassVar[bool] = True

    def __init__(
        self,
        collector: Collector,
        normaliser: Normaliser,
        *,
        rollout_length: Annotated[int, Range(1)],
        num_envs: Annotated[int, Range(1)],
    ) -> None:
        assert collector.num_envs == num_envs
        self._collector = collector
        self._normaliser = normaliser
        self._length = rollout_length

    @property
    def env_steps(self) -> int:
        return self._collector.env_steps

    def next(self, actor: Actor, progress: Progress) -> Transition:
        segment = self._normaliser.fresh(self._collector.collect(actor, progress, self._length))
        device = actor.state.device
        columns = {name: torch.from_numpy(column).to(device) for name, column in segment.items()}
        if actor.state.stacked:
            stack = (self._length, len(actor.state.seeds), self._collector.num_envs)
            columns = {name: x.view(*stack, *x.shape[2:]).movedim(1, 0).contiguous() for name, x in columns.items()}
        batch = Transition(**columns)
        return batch._replace(log_prob=actor.log_prob(batch.observation, batch.action))

    def feedback(self, state: TrainState, update: Update) -> None:
        """A rollout is used once; nothing depends on its update."""

    def statistics(self, index: int) -> dict[str, float]:
        return self._collector.statistics(index) | self._normaliser.statistics(index)

    def state_dict(self) -> dict[str, Any]:
        return {"collector": self._collector.state_dict(), "normaliser": self._normaliser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._collector.load_state_dict(state["collector"])
        self._normaliser.load_state_dict(state["normaliser"])
