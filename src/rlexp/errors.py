"""Errors that a person reads: one line that says what, where and what to do, and the exit code of the process."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class RlexpError(Exception):
    """An expected failure. `str(error)` is the line shown; `code` the exit status (docs/runs.md has the table)."""

    code = 1


class ConfigError(RlexpError):
    """The command line or a configuration file is wrong; nothing was built."""

    code = 2


class EnvironmentFailure(RlexpError):
    """An environment broke its contract: it raised, hung, or answered nonsense.

    episode: its number, the seed of its reset and the actions up to the failure, which play it again; None where they
    are not known.
    """

    code = 3

    def __init__(self, message: str, episode: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.episode = episode


class NonFiniteError(RlexpError):
    """A loss, a parameter or a reward became NaN or infinite."""

    code = 4


class StorageError(RlexpError):
    """A file could not be written, is damaged, or is held by another process."""

    code = 5


class ResourceError(RlexpError):
    """The device or the memory asked for is not there."""

    code = 6


class Interrupted(RlexpError):
    """A signal stopped the run after it was saved. `code` is 130 for Ctrl-C and 75 for a scheduler's signal."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def nearest(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the nearest known word, or an empty string where none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""
