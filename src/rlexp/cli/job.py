"""One job of a sweep in a process of its own: `python -m rlexp.cli.job NAME OVERRIDE...`, started by `rlexp -m`.

Its standard input is a pipe that the sweep holds open: when that ends, whatever became of the sweep, the job is told to
save and stop.
"""

import dataclasses
import io
import os
import signal
import sys
import threading
from typing import Any

from rlexp.cli.common import guarded, lasting_imports
from rlexp.experiment.signals import leave_until_a_run_begins
from rlexp.redaction import redact


def main() -> None:
    """The process; its exit code is that of the run."""
    leave_until_a_run_begins()
    threading.Thread(target=_stop_with_the_sweep, name="watch", daemon=True).start()
    name, *overrides = sys.argv[1:]
    sys.argv = ["rlexp", *overrides]  # what run.json says of how the run was made
    sys.stdout, sys.stderr = Redacting(sys.stdout), Redacting(sys.stderr)  # they are a file below outputs
    sys.exit(guarded(lambda: _run(name, overrides)))


class Redacting(io.TextIOBase):
    """A stream whose texts have no secrets in them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        number: int = self._stream.fileno()
        return number


def _stop_with_the_sweep() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(name: str, overrides: list[str]) -> int:
    with lasting_imports():
        from rlexp.experiment.jobs import checked_jobs
        from rlexp.experiment.session import run_one

    (job,) = checked_jobs(overrides, multirun=False)
    run_one(dataclasses.replace(job, name=name))
    return 0


if __name__ == "__main__":
    main()
