"""What processes beside a run need, whatever they are for: to end with it, and one thread each. Nothing large here."""

import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import Iterator

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Of matrix products, in the environment that a process begins with."""


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are begun inside the block have one thread, where the user does not say otherwise."""
    added = {name: value for name, value in ONE_THREAD.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def end_with_the_writer_of(descriptor: int) -> None:
    """End this process when the last writer of a pipe is gone, also inside an environment's C code.

    The kernel sends SIGIO then, whose default is to end the process. A thread that watches could not run while C code
    holds the interpreter. Nothing may be written into the pipe.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([descriptor], [], [], 0)[0]:  # it was gone before the kernel was asked
        sys.exit(1)
