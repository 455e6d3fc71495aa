"""What the commands share: one line for an error, the exit code, the form of a command line."""

import argparse
import contextlib
import errno
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from rlexp.errors import ConfigError, ResourceError, RlexpError
from rlexp.redaction import redact

LONGEST = 2000  # characters of an error's line: a value may be as long as a command line


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


def add_policy_of_a_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which policy of which run is meant."""
    parser.add_argument("run", type=Path, help="folder of a run, such as outputs/ppo_cartpole-v1/1a2b3c4d/s0")
    parser.add_argument("--weights", choices=("final", "best"), default="final", help="which weights (final)")
    parser.add_argument("--policy", choices=("deterministic", "sampled"), help="default: as the run was configured")
    parser.add_argument("--plugin", action="append", default=[], help="a package of your own that the run used")
    parser.add_argument("--device", help="in place of the one that the run was made on")


def positive(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def changed_line(run: Path, changed: list[int]) -> str:
    """What to say of episodes that came out otherwise than when they were evaluated."""
    shown = ", ".join(map(str, changed[:5])) + (", ..." if len(changed) > 5 else "")
    episodes = f"episode {shown}" if len(changed) == 1 else f"{len(changed)} episodes ({shown})"
    return (
        f"rlexp: {run}: {episodes} came out otherwise than when they were evaluated: the "
        "environment does not repeat itself, or the machine or the versions are others\n"
    )


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
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        report(ResourceError(f"{error.filename or 'a file'}: {error.strerror}; raise ulimit -n"))
        return ResourceError.code


def report(error: RlexpError) -> None:
    """One line without secrets; what a terminal would obey (a file's name or value may hold it) is shown, not sent."""
    words = redact(" ".join(str(error).split()))
    if len(words) > LONGEST:  # it begins with what and where, and ends with what to do
        words = f"{words[: LONGEST // 2]} ... {words[-LONGEST // 2 :]}"
    message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    sys.stderr.write(f"rlexp: error[{error.code}]: {message}\n")
    sys.stderr.flush()
