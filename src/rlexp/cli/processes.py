"""Commands side by side, so many at once; signals reach each of them, and none outlives this process for long."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rlexp.envs.processes import ONE_THREAD
from rlexp.experiment.signals import handled
from rlexp.storage import open_log

POLL = 0.05  # seconds between looks at the processes
PATIENT_SIGNALS = 2  # a first lets every process save, a second hurries it, a third kills


def run_side_by_side(
    commands: Sequence[Sequence[str]],
    logs: Sequence[Path],
    at_once: int,
    begun: Callable[[int], None],
    ended: Callable[[int, int], None],
) -> signal.Signals | None:
    """Run every command; returns the signal that stopped them before all were begun and done, or None.

    begun(i) and ended(i, status) are told of command i; status is negative where a signal ended it, as in subprocess.
    Each process has one thread for its matrices, a session of its own (Ctrl-C in the terminal comes once, from here),
    its output in logs[i], and a pipe from here for its input, whose end tells it that this process is gone.
    """
    waiting = list(range(len(commands)))
    running: dict[int, subprocess.Popen[bytes]] = {}
    received: list[signal.Signals] = []
    with handled(lambda number, frame: received.append(signal.Signals(number))):
        told = 0
        try:
            while running or (waiting and not received):
                while waiting and len(running) < at_once and not received:
                    number = waiting.pop(0)
                    running[number] = _start(commands[number], logs[number])
                    begun(number)
                if len(received) > told:
                    told += 1
                    _tell(running, received[told - 1] if told <= PATIENT_SIGNALS else signal.SIGKILL)
                done = {number: process.poll() for number, process in running.items()}
                for number, status in done.items():
                    if status is not None:
                        _close(running.pop(number))
                        ended(number, status)
                if not any(status is not None for status in done.values()):
                    time.sleep(POLL)
        finally:
            for process in running.values():  # only after an error of ours: their inputs end, and they save
                _close(process)
            for process in running.values():
                process.wait()
        return received[0] if received else None


def _start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    descriptor = open_log(log)
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            env=os.environ | ONE_THREAD,
        )
    finally:
        os.close(descriptor)


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()


def _tell(running: dict[int, "subprocess.Popen[bytes]"], number: signal.Signals) -> None:
    for process in running.values():
        process.send_signal(number)


def job_command(name: str, overrides: Sequence[str]) -> list[str]:
    """What runs one job in a process of its own. -P: no file of the current folder stands for one of ours."""
    return [sys.executable, "-P", "-m", "rlexp.cli.job", name, *overrides]


def last_words(log: Path) -> str:
    """The line in which a process said why it failed: rlexp's own, or the last of a traceback."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    ours = [line.partition("]: ")[2] for line in lines if line.startswith("rlexp: error[")]
    return (ours or lines or [""])[-1]
