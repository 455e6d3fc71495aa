"""Hyperparameters that change over a run, as functions of Progress (never of a number of calls)."""

from typing import Annotated

from rlexp.ranges import PROBABILITY
from rlexp.types import Progress


def constant(progress: Progress, *, value: float) -> float:
    """The same value throughout."""
    del progress
    return value


def linear(progress: Progress, *, start: float, end: float, fraction: Annotated[float, PROBABILITY]) -> float:
    """From `start` to `end` in a straight line over the first `fraction` of the run's environment steps, then `end`."""
    reached = progress.env_steps / max(1.0, fraction * progress.total_env_steps)
    # Without a branch it may be recorded, with steps that are a tensor (rlexp.programs).
    return (reached < 1.0) * (start + (end - start) * reached) + (reached >= 1.0) * end
