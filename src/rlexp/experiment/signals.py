"""Signals only set a flag; the run saves at its next boundary and says with which code it left."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlexp.errors import Interrupted
from rlexp.types import Progress, Update

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Signals:
    """A callback that asks the loop to stop after a signal. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.at_once = False  # set where everything is saved already: a signal then raises right away

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Any) -> str | None:
        return None if self.received is None else f"received {self.received.name}"

    def error(self, saved: str) -> Interrupted:
        assert self.received is not None
        return Interrupted(f"stopped by {self.received.name}, {saved}", CODES[self.received])

    def _handle(self, number: int, frame: Any) -> None:
        again = self.received is not None
        self.received = self.received or signal.Signals(number)
        if self.at_once or (again and number == signal.SIGINT):
            raise self.error("the last checkpoint stands; the same command continues")


@contextmanager
def watched() -> Iterator[Signals]:
    """Handle the signals of a user (Ctrl-C) and of schedulers (SIGTERM, SIGUSR1) inside the block."""
    signals = Signals()
    with handled(signals._handle):
        yield signals


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Inside the block those signals call `handler`; afterwards what they called before."""
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
            signal.signal(number, former)
