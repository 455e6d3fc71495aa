"""Signals and whose they are; what becomes of a run that gets them is in tests/faults."""

import contextlib
import os
import signal

import pytest

from rlexp.errors import Interrupted
from rlexp.experiment.signals import handled, leave_at_once, watched


@pytest.fixture
def outer() -> list[int]:
    return []


def test_a_signal_that_did_not_end_a_run_is_handed_on(outer: list[int]) -> None:
    """A sweep hears of one that came while a run failed in another way, or had finished."""
    with handled(lambda number, frame: outer.append(number)):
        with contextlib.suppress(ValueError), watched():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError
        assert outer == [signal.SIGTERM]
        with watched() as signals:
            signals.phase = "settled"
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.hurried
        assert outer == [signal.SIGTERM, signal.SIGUSR1]


def test_a_signal_that_ended_a_run_is_not(outer: list[int]) -> None:
    def stopped() -> None:
        with watched() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            raise signals.error("saved")

    with handled(lambda number, frame: outer.append(number)), pytest.raises(Interrupted, match="SIGTERM, saved"):
        stopped()
    assert outer == []


def test_what_is_no_longer_needed_is_ignored() -> None:
    """Also while the interpreter is taken apart, as handlers in Python are not."""
    with handled(signal.SIG_DFL):
        signal.signal(signal.SIGTERM, leave_at_once)
        with watched():
            assert signal.getsignal(signal.SIGTERM) is not leave_at_once
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("phase", "raised"), [("training", [2]), ("saved", [1, 2]), ("settled", []), ("waiting", [1, 2])]
)
def test_what_a_signal_does_depends_on_the_phase(phase: str, raised: list[int]) -> None:
    """Ctrl-C twice."""
    found = []
    with contextlib.suppress(Interrupted), watched() as signals:
        signals.phase = phase
        for n in (1, 2):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                found.append(n)
        raise signals.error("saved")
    assert found == raised
