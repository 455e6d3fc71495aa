"""Real processes to do harm to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rlexp.storage.rows import read_rows
from tests.experiment.support import LONGEST, TINY

ROOT = Path(__file__).parents[2]
SMALL = ["algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=20", *TINY]
"""A run of 800 steps that saves at 320, 640 and its end."""


class Launched:
    """`COMMAND WORD...` in a process and a group of its own, with a folder for what it says.

    words: of `rlexp`.  command: instead of `python -m rlexp`.  wrapped: a command that is given that one.
    environment: what differs from this process's.
    """

    def __init__(
        self,
        said: Path,
        *words: str,
        cwd: Path | None = None,
        command: Sequence[str] = (sys.executable, "-m", "rlexp"),
        wrapped: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        def begin() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
            signal.alarm(LONGEST)  # whatever becomes of the test
            if prepare is not None:
                prepare()

        quiet = {"WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        said.mkdir(parents=True, exist_ok=True)
        self._out, self._err = said / "stdout", said / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*wrapped, *command, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=os.environ | quiet | dict(environment or {}),
                start_new_session=True,
                preexec_fn=begin,
            )
        self.pid = self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: int, *, to_group: bool = False) -> None:
        (os.killpg if to_group else os.kill)(self.pid, number)

    def end(self, seconds: float = 120) -> int:
        """Wait for the end; returns the exit status, −n where signal n killed it. Kills the group at the deadline."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"still at work after {seconds} s; it said: {self.errors()}") from None

    def errors(self) -> list[str]:
        """The lines of its standard error so far."""
        return self._err.read_text(errors="replace").splitlines()

    def output(self) -> list[str]:
        return self._out.read_text(errors="replace").splitlines()


def wait_until(condition: Callable[[], bool], seconds: float = 60, what: str = "it") -> None:
    """Look every 5 ms. Raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to pass in {seconds} s")
        time.sleep(0.005)


def run_below(outputs: Path) -> Path | None:
    """The folder of the one run below, None while there is none. Folders of W&B, which may vanish, are not entered."""
    return next((path.parent for path in outputs.glob("*_*/*/*/run.json")), None)


def rows_below(outputs: Path) -> int:
    """How many rows the one run below has so far."""
    folder = run_below(outputs)
    return 0 if folder is None or not (folder / "rows.jsonl").exists() else len(read_rows(folder / "rows.jsonl"))


def processes_of_group(group: int) -> list[int]:
    """Those of a process group that are alive."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                state, _, pgrp = path.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(pgrp) == group and state != "Z":
                found.append(int(path.name))
    return found


def under_load(seconds: float) -> float:
    """A bound that holds where a process has a core, longer by as much as the cores are shared now."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
