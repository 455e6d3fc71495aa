"""Real system calls of an action in a forked process, seen, and turned into its death, by strace."""

import collections
import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.lab import wait_until

STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def traced(
    action: Callable[[], object], calls: Sequence[str], log: Path, kill: tuple[str, int] | None = None
) -> dict[str, int]:
    """Do it in a process of its own, under strace; returns how many of each call it made.

    kill: SIGKILL at the n-th call of that name, before it has an effect.
    """
    log.unlink(missing_ok=True)
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            while not select.select([ready], [], [], 0.001)[0]:
                os.sched_yield()  # seen in the log, it says that strace is at work
            action()
            code = 0
        finally:
            os._exit(code)
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace=sched_yield,{','.join(calls)}", "-p", str(pid)]
    if kill is not None:
        command += ["-e", f"inject={kill[0]}:signal=KILL:error=EINTR:when={kill[1]}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL):
        wait_until(lambda: log.exists() and "sched_yield(" in log.read_text(), what="strace")
        os.write(go, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ready)
    os.close(go)
    assert status == (0 if kill is None else -signal.SIGKILL)
    made = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    return {call: count for call, count in collections.Counter(made).items() if call in calls}
