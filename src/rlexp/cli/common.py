"""What the commands share: one line for an error, the exit code, the form of a command line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from rlexp.errors import ConfigError, RlexpError


class Parser(argparse.ArgumentParser):
    """Its errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


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
