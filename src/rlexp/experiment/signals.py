"""Signals only set a flag; the run saves at its next boundary and says with which code it left."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rlexp.errors import Interrupted

if TYPE_CHECKING:  # a command handles signals before it imports anything large
    from rlexp.types import Progress, Update

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Signals:
    """A callback that asks the loop to stop after a signal. A second Ctrl-C stops at once.

    What a signal does depends on the phase of the run:
        training: it is kept until the loop asks.
        saved: everything is on the disk, so the first one stops at once.
        settled: how the run ended is being written down; it only hurries what comes then.
        waiting: for W&B, which it ends.
    To stop at once is a KeyboardInterrupt: no `except Exception` on its way takes it for an environment's own error.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.phase: Literal["training", "saved", "settled", "waiting"] = "training"
        self.hurried = False

    def __call__(self, progress: "Progress", updates: "Sequence[Sequence[Update]]", state: Any) -> str | None:
        return None if self.received is None else f"received {self.received.name}"

    def error(self, saved: str) -> Interrupted:
        assert self.received is not None
        return Interrupted(f"stopped by {self.received.name}, {saved}", CODES[self.received])

    def saved(self) -> None:
        """Everything is on the disk: from here on a signal stops at once, also one that came a moment ago."""
        self.phase = "saved"
        if self.received is not None:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        first = self.received is None
        insists = number == signal.SIGINT and not first
        self.received = self.received or signal.Signals(number)
        self.hurried = self.hurried or insists or self.phase == "settled"
        if {"training": insists, "saved": first or insists, "settled": False, "waiting": True}[self.phase]:
            raise KeyboardInterrupt


@contextmanager
def watched() -> Iterator[Signals]:
    """Handle the signals of a user (Ctrl-C) and of schedulers (SIGTERM, SIGUSR1) inside the block.

    One that did not end the block by `Signals.error`, as it had ended in another way, is raised again afterwards: the
    run of a sweep is over, and the sweep is to stop.
    """
    signals = Signals()
    answered = False
    try:
        with handled(signals._handle):
            yield signals
    except Interrupted:
        answered = True
        raise
    finally:
        if signals.received is not None and not answered:
            signal.raise_signal(signals.received)


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Inside the block those signals call `handler`; afterwards what they called before.

    Where that was `leave_at_once` they are ignored afterwards: what the process was for is done, and to take an
    interpreter apart takes a while in which a signal would change its exit code.
    """
    before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
    try:
        for number in CODES:
            before[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread: a caller's own code runs experiments there and keeps its handlers
        pass
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_IGN if former is leave_at_once else former)


def leave_at_once(number: int, frame: Any) -> None:
    """The handler of a process that has not begun its run: there is nothing to save.

    It does not raise: half of an import of torch would hide the exception or turn it into another.
    """
    name = signal.Signals(number).name
    line = f"rlexp: error[{CODES[signal.Signals(number)]}]: stopped by {name} before the run began; the same command "
    with contextlib.suppress(Exception):  # it may have come while a line was being written
        sys.stderr.write(f"{line}begins it\n")
        sys.stderr.flush()
    os._exit(CODES[signal.Signals(number)])


def leave_until_a_run_begins() -> None:
    """For a process that is there for a run alone, at its very beginning."""
    for number in CODES:
        signal.signal(number, leave_at_once)
