"""How often things happen, in environment steps."""

from collections.abc import Mapping
from typing import Any

from rlexp.types import Progress

INTERVALS = {"logger": 100, "evaluation": 10, "checkpoint": 10}
"""Group to the number of times that a run of any length logs, evaluates or saves where its interval is null."""


def interval_of(config: Mapping[str, Any], group: str) -> int:
    """The configured interval of a group, or its part of the run."""
    interval: int | None = config[group]["interval"]
    return interval if interval is not None else max(1, config["total_env_steps"] // INTERVALS[group])


class Every:
    """Due once at each multiple of `interval`, at the first turn that reaches or passes it.

    Multiples, not distances from the last time: where a turn takes many steps, nothing drifts.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.passed = 0

    def resume(self, env_steps: int) -> None:
        """Stand where an uninterrupted run stands after its turn at `env_steps`: nothing need be saved for that."""
        self.passed = env_steps // self.interval

    def due(self, env_steps: int) -> bool:
        passed = env_steps // self.interval
        if passed == self.passed:
            return False
        self.passed = passed
        return True


class EveryAndLast:
    """Due for seeds that are in step at each multiple of `interval`, and at the last turn that they take part in."""

    def __init__(self, interval: int) -> None:
        self._every = Every(interval)
        self._env_steps = 0

    def resume(self, env_steps: int) -> None:
        """Stand where an uninterrupted run stands after the seeds' turn at `env_steps`."""
        self._every.resume(env_steps)
        self._env_steps = env_steps

    def due(self, progress: Progress, finished: bool) -> bool:
        """Never after a turn in which the seeds took no step: they have reached the end, or are frozen."""
        if progress.env_steps == self._env_steps:
            return False
        self._env_steps = progress.env_steps
        return self._every.due(progress.env_steps) or progress.env_steps >= progress.total_env_steps or finished
