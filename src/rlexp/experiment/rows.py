"""The callback that turns updates into rows: every `interval` environment steps, what happened since the last row.

Seeds that are in step have their rows at the same turn, and what they hold is reduced at once; of seeds that are apart
each has its own turns, by its own steps.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlexp.clock import Clock
from rlexp.experiment.intervals import EveryAndLast
from rlexp.experiment.members import Failures
from rlexp.experiment.metrics import reduce
from rlexp.storage.rows import RowLog
from rlexp.types import Experience, Progress, Seeds, Update

Row = dict[str, Any]
Statistics = Callable[[Progress], dict[str, float]]


class Ledger:
    """What happened to the seeds of one member of the state since their last row."""

    def __init__(self, places: range, interval: int, clock: Clock) -> None:
        self.places = places
        self.pending: dict[str, list[Tensor]] = {}
        self.turns = EveryAndLast(interval)
        self._clock = clock
        self._last = (time.perf_counter(), 0, clock.read())  # of the last row: when, env_steps, seconds of each phase

    def add(self, updates: Sequence[Update]) -> None:
        for update in updates:
            for name, value in update.metrics.items():
                self.pending.setdefault(name, []).append(value)

    def close(self) -> dict[str, list[float]]:
        """For each metric its value in the row of each seed; what follows counts for the next row."""
        pending, self.pending = self.pending, {}
        return {name: reduce(name, values) for name, values in pending.items()}

    def timing(self, env_steps: int) -> dict[str, float]:
        now, phases = time.perf_counter(), self._clock.read()
        (then, steps, before), self._last = self._last, (now, env_steps, phases)
        since = {f"time/{phase}": phases[phase] - before.get(phase, 0.0) for phase in sorted(phases)}
        return {"time/fps": (env_steps - steps) / max(now - then, 1e-9), **since}

    def resume(self, env_steps: int) -> None:
        """Go on after a turn at `env_steps`; time counts from now."""
        self.turns.resume(env_steps)
        self._last = (time.perf_counter(), env_steps, self._clock.read())


class Rows:
    """Holds the metrics since the last row, on their device, and appends a row to the log of each seed.

    Args:
        logs: where rows go, by seed.
        ledgers: of the members of the state.
        experience: whose statistics since the last row stand in a row.
        statistics: present values (schedules), asked once a row.
        listeners: told of each row after it is on the disk, by seed.
        failures: told of seeds whose numbers are not finite.
    """

    def __init__(
        self,
        logs: Mapping[int, RowLog],
        ledgers: Sequence[Ledger],
        experience: Experience,
        statistics: Statistics,
        listeners: Mapping[int, Sequence[Callable[[Row], None]]],
        failures: Failures,
    ) -> None:
        self._logs = logs
        self._ledgers = list(ledgers)
        self._experience = experience
        self._statistics = statistics
        self._listeners = listeners
        self._failures = failures

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Seeds) -> str | None:
        for ledger, member, learned in zip(self._ledgers, state.members, updates, strict=True):
            ledger.add(learned)
            if ledger.turns.due(member.progress, self._experience.finished):
                self.write_training_rows(ledger, member, state)
        return None

    def write_training_rows(self, ledger: Ledger, member: Any, state: Seeds) -> None:
        """A seed whose numbers are not finite is frozen after its row; raises NonFiniteError where no other is left."""
        progress = member.progress
        reduced = ledger.close()
        common = self._statistics(progress)
        learning_rate = member.learning_rate()
        if learning_rate is not None:
            common["optimizer/learning_rate"] = learning_rate
        common |= ledger.timing(progress.env_steps)
        for number, index in enumerate(ledger.places):
            statistics = self._experience.statistics(index)  # asked of a frozen seed, too: it would pile up
            if state.frozen[index]:
                continue
            row: Row = {name: values[number] for name, values in reduced.items()} | statistics | common
            self.append("train", state.seeds[index], progress, row)
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

    def resume(self, state: Seeds) -> None:
        for ledger, member in zip(self._ledgers, state.members, strict=True):
            ledger.resume(member.progress.env_steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": [log.next_seq for log in self._logs.values()],
            "pending": [
                {name: torch.stack(values) for name, values in ledger.pending.items()} for ledger in self._ledgers
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for log, count in zip(self._logs.values(), state["rows"], strict=True):
            log.cut(count)
        for ledger, pending in zip(self._ledgers, state["pending"], strict=True):
            ledger.pending = {name: list(values.unbind()) for name, values in pending.items()}
