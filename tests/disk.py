"""Failing and killing at the n-th operation that `rlexp.storage` announces."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlexp import storage

Hook = Callable[[str, Path], None]


def operations_of(action: Callable[[], Any]) -> int:
    """How many operations an action takes."""
    count = 0

    def hook(name: str, path: Path) -> None:
        nonlocal count
        count += 1

    storage.before_operation = hook
    try:
        action()
    finally:
        storage.before_operation = None
    return count


def _at(n: int, action: Callable[[], Any]) -> Hook:
    count = 0

    def hook(name: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count == n:
            action()

    return hook


def fail_at(n: int, number: int) -> Hook:
    """An OSError of that number before the n-th operation, once."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return _at(n, fail)


def kill_at(n: int) -> Hook:
    """The process ends before the n-th operation, with status 9 and without cleaning up."""
    return _at(n, lambda: os._exit(9))


def in_child(hook: Callable[[], Hook], action: Callable[[], Any]) -> int:
    """Run an action under a hook in a forked process; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            storage.before_operation = hook()
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
