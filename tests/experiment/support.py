"""Small runs, in this process or in one forked from it."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlexp.cli.common import guarded
from rlexp.cli.main import command
from rlexp.experiment.display import Display
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.run import run
from rlexp.experiment.signals import leave_until_a_run_begins
from rlexp.storage.rows import read_rows

TINY = [
    "total_env_steps=800",
    "logger=local",
    "display=none",
    "logger.interval=40",
    "checkpoint.interval=300",
    "evaluation.interval=200",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "evaluation.num_envs=2",
]
"""The first overrides of a run that takes less than a second."""

LONGEST = 240
"""Seconds after which a run in a process of its own is ended, whatever became of the test that began it."""


def run_in(outputs: Path, *overrides: str) -> Path:
    """Run a command line; later overrides of a key win. Returns the run's folder."""
    chosen = {override.partition("=")[0]: override for override in overrides}
    (job,) = checked_jobs([*chosen.values(), f"outputs={outputs}"], multirun=False)
    return run(job, Display(job.config["display"])).directory


def rows_of(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows without their number and their times."""
    rows = [row for row in read_rows(folder / "rows.jsonl") if kind in (None, row["kind"])]
    return [{key: value for key, value in row.items() if key != "seq" and not key.startswith("time/")} for row in rows]


class Forked:
    """`rlexp OVERRIDE...` in a process forked from this one: it has torch already, a new one takes two seconds for it.

    said: the file for its standard error.  prepare: called in the process first.
    """

    def __init__(self, said: Path, *overrides: str, prepare: Callable[[], None] | None = None) -> None:
        self._said = said
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _as_the_command(said, overrides, prepare)
            finally:
                os._exit(code)

    def ended(self) -> int | None:
        """Its exit status, negative where a signal ended it, None while it goes on; not to be asked again."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None

    def wait(self, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while (status := self.ended()) is None:
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)
        return status

    def stderr(self) -> str:
        return self._said.read_text()


def _as_the_command(said: Path, overrides: tuple[str, ...], prepare: Callable[[], None] | None) -> int:
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open(descriptor, "w", buffering=1) as sys.stderr, open(os.devnull, "w") as sys.stdout:
        os.dup2(descriptor, 2)
        signal.alarm(LONGEST)
        leave_until_a_run_begins()
        if prepare is not None:
            prepare()
        return guarded(lambda: command(overrides))
