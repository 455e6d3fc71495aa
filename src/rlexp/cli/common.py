"""What the commands share: one line for an error, the exit code, the form of a command line."""

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from rlexp.errors import ConfigError, RlexpError


class Parser(argparse.ArgumentParser):
    """Its errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """For imports that bring torch: half a million objects that stay.

    To look through them for garbage, while they come and ever after, takes an eighth of the time to a first step.
    """
    if "torch" in sys.modules:  # whoever imported it before has objects of its own
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def guarded(command: Callable[[], int]) -> int:
    """Run a command; an expected error becomes one line on stderr and its exit code. A bug keeps its traceback."""
    try:
        return command()
    except RlexpError as error:
        report(error)
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write("rlexp: error[130]: stopped by Ctrl-C\n")
        return 130
    except BrokenPipeError:
        return 1


def report(error: RlexpError) -> None:
    message = " ".join(str(error).split())
    sys.stderr.write(f"rlexp: error[{error.code}]: {message}\n")
    sys.stderr.flush()
