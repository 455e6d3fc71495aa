"""One process at a time in a folder."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from rlexp.errors import StorageError
from rlexp.storage import FILE_MODE, as_storage_error

GLANCE = 0.2  # seconds that a lock is tried for: `is_locked` of another process holds it for some microseconds
NAMED = 0.3  # seconds in which who holds a lock has written its name into it


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process. The kernel drops the lock when the process ends, however it ends.

    Raises StorageError, with the owner's name, where another process holds it.
    """
    path = directory / "lock"
    with as_storage_error(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        if not take(descriptor, fcntl.LOCK_EX, GLANCE):
            owner = _owner(descriptor) or "another process"
            raise StorageError(f"{directory} is in use by {owner}; wait for it, or choose another seed")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    """What the holder of a lock calls itself. It writes that once it holds it, so a moment may pass."""
    deadline = time.monotonic() + NAMED
    while True:
        name = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        if name or time.monotonic() >= deadline:
            return name
        time.sleep(0.005)


def is_locked(directory: Path) -> bool:
    """Whether a process holds a directory now. Makes nothing, and hinders nobody who wants to hold it."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # nobody ever held it
        return False
    try:
        return not take(descriptor, fcntl.LOCK_SH, 0.0)
    finally:
        os.close(descriptor)


def take(descriptor: int, kind: int, patience: float) -> bool:
    """Whether a lock of that kind was got within so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
