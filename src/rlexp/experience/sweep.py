"""The whole model at once: the experience of dynamic programming."""

from typing import Annotated, Any, ClassVar

from rlexp.experience.actor import Actor
from rlexp.ranges import Range
from rlexp.state import TrainState
from rlexp.types import MDP, Progress, Update


class Sweep:
    """A batch is the model; each counts as one step on the x-axis, since no environment is stepped.

    The run ends early once the largest Bellman residual of a sweep is at most `tolerance`.
    """

    gives: ClassVar[str] = "sweep"
    owed: ClassVar[bool] = False
    in_step: ClassVar[bool] = True

    def __init__(self, model: MDP, *, tolerance: Annotated[float, Range(0)]) -> None:
        self._model = model
        self._tolerance = tolerance
        self.env_steps = 0
        self.finished = False

    def next(self, actor: Actor, progress: Progress) -> MDP:
        self.env_steps += 1
        return self._model

    def feedback(self, state: TrainState, update: Update) -> None:
        # One number read back a sweep; the models that fit a table live on the CPU.
        self.finished = float(update.metrics["value/bellman_residual"]) <= self._tolerance

    def statistics(self, index: int) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"env_steps": self.env_steps, "finished": self.finished}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps, self.finished = state["env_steps"], state["finished"]
