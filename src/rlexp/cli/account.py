"""What a person hears of a sweep: how many runs and how long, each job as it begins and ends, what is left to do."""

import sys
import time
from collections.abc import Mapping, Sequence

from rlexp.experiment.pace import Pace, clock, seconds_left
from rlexp.experiment.plans import Plan, Planned
from rlexp.experiment.standing import WAITING, Standing, standing_of
from rlexp.experiment.status import FINISHED
from rlexp.redaction import redact

LAUNCH = 5.0  # seconds that a process of its own takes to import torch and to check its job


class Account:
    """Everything goes to stderr; the results themselves are lines of stdout.

    processes: how many jobs run at once, each in a process of its own; None: one after the other in this one.
    """

    def __init__(self, plan: Plan, processes: int | None) -> None:
        self._plan = plan
        self._at_once = processes or 1
        self._pace = Pace(LAUNCH if processes else 0.0)
        self._left: dict[int, int] = {}  # job number: env_steps that it has yet to do
        self._begun: dict[int, float] = {}
        self._states = {job.number: WAITING for job in plan.jobs}
        self._failures: dict[int, tuple[int, str]] = {}
        self._began = time.monotonic()

    def announce(self, stands: Mapping[int, Standing]) -> None:
        """One line, before anything runs: how many runs and about how long. stands: of each job, by its number."""
        finished = 0
        for job in self._plan.jobs:
            stand = stands[job.number]
            if stand.state == FINISHED:
                self._states[job.number] = FINISHED
                finished += 1
            else:
                self._left[job.number] = max(0, job.total_env_steps - (stand.env_steps or 0))
        earlier = self._pace.look_back([self._job(number).folder.parent for number in self._left])
        parts = [f"sweep {self._plan.folder.name}: {_count(len(self._plan.jobs), 'run')}"]
        if finished:
            parts.append(f"{finished} finished already")
        if self._left and self._at_once > 1:
            parts.append(f"{min(self._at_once, len(self._left))} at once")
        if self._left:
            how = f"by {_count(earlier, 'earlier run')}" if earlier else "no earlier run to judge by"
            parts.append(f"{self._time_left() or 'time unknown'} ({how})")
        _say(", ".join(parts))

    def begin(self, job: Planned) -> None:
        self._begun[job.number] = time.monotonic()
        _say(f"job {job.number} of {len(self._plan.jobs)} begins: {job.name}")

    def end(self, job: Planned, state: str, code: int = 0, error: str = "") -> None:
        """code, error: of a job that did not finish."""
        seconds = time.monotonic() - self._begun[job.number]
        error = " ".join(error.split())
        steps = self._left.pop(job.number)
        self._states[job.number] = state
        stand = standing_of(job.folder, job)
        if state == FINISHED:
            self._pace.note(job.folder.parent, seconds, steps)
            result = "" if stand.final_return is None else f", return {stand.final_return:.1f}"
            said = f"finished in {clock(seconds)}{result}: {job.name}"
        else:
            self._failures[job.number] = (code, error)
            said = f"{state} after {clock(seconds)}: {job.name}: {error}"
        left = self._time_left() if self._left else None
        _say(f"job {job.number} of {len(self._plan.jobs)} {said}{f'; {left} left' if left else ''}")

    def close(self) -> None:
        """How many finished; a table of the others, each with its error."""
        rest = [job for job in self._plan.jobs if self._states[job.number] != FINISHED]
        taken = clock(time.monotonic() - self._began)
        _say(f"sweep: {len(self._plan.jobs) - len(rest)} of {_count(len(self._plan.jobs), 'run')} finished, in {taken}")
        if rest:
            rows = [
                (f"  job {job.number}", self._states[job.number], job.name, self._failures.get(job.number, (0, ""))[1])
                for job in rest
            ]
            for line in table(rows):
                _say(line)
            _say(f"rlexp-status {self._plan.folder} shows all; the same command runs what is not finished")

    def unfinished(self) -> bool:
        return any(state != FINISHED for state in self._states.values())

    def code(self) -> int:
        """The exit code: of the first job that did not finish, 0 where all did."""
        return next((self._failures[number][0] or 1 for number in sorted(self._failures)), 0)

    def _job(self, number: int) -> Planned:
        return self._plan.jobs[number - 1]

    def _time_left(self) -> str | None:
        now = time.monotonic()
        waiting, running = [], []
        for number, env_steps in self._left.items():
            seconds = self._pace.seconds(self._job(number).folder.parent, env_steps)
            if seconds is None:
                return None
            if number in self._begun:
                running.append(max(0.0, seconds - (now - self._begun[number])))
            else:
                waiting.append(seconds)
        return f"about {clock(seconds_left(waiting, running, self._at_once))}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; the last is as long as it likes."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _say(text: str) -> None:
    text = redact(text)
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
