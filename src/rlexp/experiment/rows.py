"""The callback that turns updates into rows: every `interval` environment steps, what happened since the last row."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlexp.clock import Clock
from rlexp.experiment.intervals import Every
from rlexp.experiment.members import Failures
from rlexp.experiment.metrics import reduce
from rlexp.storage import RowLog
from rlexp.types import Experience, Progress, Update

Row = dict[str, Any]
Statistics = Callable[[Progress], dict[str, float]]


class Rows:
    """Holds the metrics since the last row, on their device, and appends a row to the log of each seed.

    Args:
        logs: where rows go, by seed.
        interval: environment steps between training rows.
        experience, clock: what they count since the last row.
        statistics: present values (schedules), asked once a row.
        listeners: told of each row after it is on the disk, by seed.
        failures: told of seeds whose numbers are not finite.
    """

    def __init__(
        self,
        logs: Mapping[int, RowLog],
        interval: int,
        experience: Experience,
        clock: Clock,
        statistics: Statistics,
        listeners: Mapping[int, Sequence[Callable[[Row], None]]],
        failures: Failures,
    ) -> None:
        self._logs = logs
        self._every = Every(interval)
        self._experience = experience
        self._clock = clock
        self._statistics = statistics
        self._listeners = listeners
        self._pending: dict[str, list[Tensor]] = {}
        self._last = (time.perf_counter(), experience.env_steps)
        self._failures = failures

    def __call__(self, progress: Progress, updates: Sequence[Update], state: Any) -> str | None:
        pending = self._pending
        for update in updates:
            for name, value in update.metrics.items():
                pending.setdefault(name, []).append(value)
        last = progress.env_steps >= progress.total_env_steps or self._experience.finished
        if self._every.due(progress.env_steps) or last:
            self.write_training_rows(progress, state)
        return None

    def write_training_rows(self, progress: Progress, state: Any) -> None:
        """A seed whose numbers are not finite is frozen after its row; raises NonFiniteError where no other is left."""
        reduced = {name: reduce(name, values) for name, values in self._pending.items()}
        self._pending = {}
        common = self._statistics(progress)
        learning_rate = state.learning_rate()
        if learning_rate is not None:
            common["optimizer/learning_rate"] = learning_rate
        common |= self._timing(progress)
        statistics = self._experience.statistics()
        for index, seed in enumerate(self._logs):
            if state.frozen[index]:
                continue
            row: Row = {name: values[index] for name, values in reduced.items()} | statistics[index] | common
            self.append("train", seed, progress, row)
            bad = [name for name, value in row.items() if not math.isfinite(value)]
            if bad:
                message = (
                    f"{bad[0]} became {row[bad[0]]} by env_steps={progress.env_steps}; lower optimizer.learning_rate "
                    "or set optimizer.max_grad_norm; the last finite checkpoint is kept"
                )
                self._failures.add(index, message, state)

    def append(self, kind: str, seed: int, progress: Progress, values: Row) -> None:
        """One row, on the disk before this returns."""
        row = {"kind": kind, "env_steps": progress.env_steps, "updates": progress.updates, **values}
        self._logs[seed].append(row)
        for listener in self._listeners[seed]:
            listener(row)

    def _timing(self, progress: Progress) -> dict[str, float]:
        now, (then, steps) = time.perf_counter(), self._last
        self._last = (now, progress.env_steps)
        phases = {f"time/{phase}": seconds for phase, seconds in sorted(self._clock.drain().items())}
        return {"time/fps": (progress.env_steps - steps) / max(now - then, 1e-9), **phases}

    def resume(self, env_steps: int) -> None:
        """Go on after a turn at `env_steps`; time counts from now."""
        self._every.resume(env_steps)
        self._clock.drain()
        self._last = (time.perf_counter(), env_steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": [log.next_seq for log in self._logs.values()],
            "pending": {name: torch.stack(values) for name, values in self._pending.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for log, count in zip(self._logs.values(), state["rows"], strict=True):
            log.cut(count)
        self._pending = {name: list(values.unbind()) for name, values in state["pending"].items()}
