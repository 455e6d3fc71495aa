"""One job of a sweep in a process of its own: `python -m rlexp.cli.job NAME OVERRIDE...`, started by `rlexp -m`.

Its standard input is a pipe that the sweep holds open: when that ends, whatever became of the sweep, the job is told to
save and stop.
"""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any

from rlexp.cli.common import guarded, lasting_imports
from rlexp.experiment.signals import leave_until_a_run_begins
from rlexp.redaction import redact

LONGEST_LINE = 10_000  # characters that wait for its end: dots that show how far something is may have none


def main() -> None:
    """The process; its exit code is that of the run."""
    leave_until_a_run_begins()
    threading.Thread(target=_stop_with_the_sweep, name="watch", daemon=True).start()
    name, *overrides = sys.argv[1:]
    sys.argv = ["rlexp", *overrides]  # what run.json says of how the run was made
    streams: tuple[Any, Any] = Redacting(sys.stdout), Redacting(sys.stderr)  # they are a file below outputs
    sys.stdout, sys.stderr = streams
    sys.exit(guarded(lambda: _run(name, overrides)))


class Redacting:
    """A stream whose lines have no secrets in them; in all else the stream that it is given.

    A line is written when it is whole, for a print makes several writes, or when somebody flushes.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._line = ""
        self._alone = threading.RLock()  # a signal's handler may print, too

    def write(self, text: str) -> int:
        with self._alone:
            whole, end, self._line = (self._line + text).rpartition("\n")
            if end:
                self._stream.write(redact(whole) + end)
            if len(self._line) > LONGEST_LINE:
                self._hand_over()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._hand_over()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "close", "detach"):  # what is written there comes after what was written here
            self._hand_over()
        return getattr(self._stream, name)

    def _hand_over(self) -> None:
        with self._alone:
            line, self._line = self._line, ""
            if line:
                self._stream.write(redact(line))


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
