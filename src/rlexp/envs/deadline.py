"""A deadline for environments that are stepped in the run's own process.

A thread looks now and then where the main one stands: in a call of a vector's environment that has not come back since
the last look? That costs the steps nothing. A signal then raises, in the environment's own code, what is no Exception
there, and the vector makes the failure of it. What hangs in Python or waits for the system is interrupted so; C code
that keeps the interpreter stops this thread, too, and such an environment wants processes of its own
(`execution.vector=async`).
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rlexp.envs.contract import BrokenContract, Overdue
from rlexp.envs.sync import SyncVector
from rlexp.errors import EnvironmentFailure

LOOKS = 4  # in the time of the deadline; counted, for a process that was stopped meanwhile has not hung
CALLS = {
    SyncVector.__init__.__code__: "start",
    SyncVector.step.__code__: "step",
    SyncVector._begin_episode.__code__: "reset",
    SyncVector._replay.__code__: "be played again",
    SyncVector.close.__code__: "close",
}


@contextlib.contextmanager
def stepping_within(seconds: float | None) -> Iterator[None]:
    """Inside the block EnvironmentFailure is raised where a call of an environment takes longer; None: no end.

    Nothing happens outside of the main thread, which alone hears signals.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(seconds)
    before = signal.signal(signal.SIGALRM, watch.interrupt)
    thread = threading.Thread(target=watch.look, name="deadline", daemon=True)
    thread.start()
    try:
        yield
    except Overdue as late:  # the call ended as the signal came
        raise late.failure from late
    finally:
        watch.over.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)


class _Watch:
    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self._seconds = seconds
        self._main = threading.main_thread().ident

    def look(self) -> None:
        seen, unmoved = None, 0
        while not self.over.wait(self._seconds / LOOKS):
            call = _call(sys._current_frames().get(self._main or 0))
            now = None if call is None else _where(call)
            unmoved = unmoved + 1 if now is not None and now == seen else 0
            seen = now
            if unmoved >= LOOKS:
                unmoved = 0
                signal.pthread_kill(self._main or 0, signal.SIGALRM)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        call = _call(frame)
        if call is None:  # it came back in the last instant
            return
        vector, what = call.f_locals["self"], f"did not {CALLS[call.f_code]} within {self._seconds:g} s"
        advice = "check the environment, or raise execution.step_deadline where it is only slow"
        if "i" in call.f_locals:
            raise Overdue(vector._failure(call.f_locals["i"], BrokenContract(f"{what}; {advice}")))
        raise Overdue(EnvironmentFailure(f"{vector.spec.id}: {what}; {advice}"))


def _call(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of a vector that calls an environment."""
    while frame is not None and frame.f_code not in CALLS:
        frame = frame.f_back
    return frame


def _where(call: FrameType) -> Any:
    """What changes as soon as anything moves."""
    vector = call.f_locals["self"]
    time, index = getattr(vector, "time", None), getattr(vector, "_index", ())
    made = len(getattr(vector, "_envs", ()))
    return id(call), made, call.f_locals.get("i"), None if time is None else time.tobytes(), tuple(index)
