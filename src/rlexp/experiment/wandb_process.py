"""The W&B runs of a run's seeds, made from their rows: `python -m rlexp.experiment.wandb_process RUN... --parent PID`.

A process of its own follows `rows.jsonl` of each while the run goes on, so whatever W&B does (hang, fail, be slow), the
run does not notice. One serves all seeds: W&B alone takes a CPU-second and 100 MB to start. The rows are
the truth and the W&B run a copy: a resumed run makes its offline copy anew from row 0, and sends to a server the rows
that it has not got. Nothing here imports torch.
"""

import argparse
import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlexp.errors import StorageError
from rlexp.experiment.status import read_status
from rlexp.experiment.wandb_run import Target, as_resource_error, one_line, open_run
from rlexp.storage import write_json
from rlexp.storage.rows import parse_row

if TYPE_CHECKING:
    import wandb

POLL = 0.5  # seconds between looks at the rows
UNKNOWN_END = 1  # exit code of a run that ended without a word: killed, or its disk was full
NOT_FINITE = ("NaN", "Infinity", "-Infinity")


@dataclass(frozen=True)
class Mirrored:
    """A W&B run that was made: "online" or "offline", why not online, how many rows were logged, the exit code, and how
    the rows that a server had before differ from the run's, if they do."""

    mode: str
    reason: str | None
    rows: int
    exit_code: int
    differs: str | None = None


def main() -> None:
    """The process: mirror what the process `--parent` trains, and say in each folder's wandb.json what became of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a scheduler tells all processes of a job; this one ends after the run
    os.nice(10)
    target = Target(options.mode, options.project, options.entity)
    failed = mirror_all(options.directories, target, lambda: _parent_lives(options.parent))
    if "wandb" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["wandb"].teardown()
    os._exit(1 if failed else 0)  # to take apart all that W&B imported takes 0.2 s, for which the run would wait


def _parent_lives(parent: int) -> bool:
    """Whether the run may still be going: its process is there and has not closed the other end of stdin.

    Both are asked: a killed parent's forked environments keep its end open; a parent lives on after one job of many.
    Answers at once where stdin is closed, else after POLL.
    """
    closed = bool(select.select([sys.stdin], [], [], POLL)[0])
    return os.getppid() == parent and not closed


@contextlib.contextmanager
def mirror_lock(directory: Path, seconds: float | None) -> Iterator[None]:
    """Be the only one that mirrors this folder: a killed run's mirror may still be at work when the run is resumed.

    Raises StorageError where another has not ended after `seconds` (None: wait for it).
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    descriptor = os.open(directory / "run.json", os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() > deadline:
                    raise StorageError(
                        f"{directory}: another process is sending it to W&B; try again when it has ended"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def mirror(directory: Path, target: Target, run_lives: Callable[[], bool]) -> Mirrored:
    """Log the rows of a run's folder as they come, until the run has ended, and finish with its exit code.

    run_lives: is asked before each look at the rows; it may wait for the run's end as long as rows may wait.
    Raises ConfigError where the folder is not a run's or W&B is switched off, ResourceError where W&B fails.
    """
    copy = Copy(directory, target)
    done = None
    while done is None:
        done = copy.follow(run_lives())
    return done


def mirror_all(directories: Sequence[Path], target: Target, run_lives: Callable[[], bool]) -> list[Path]:
    """`mirror` for the folders of several seeds at once.

    What fails for one is said in its wandb.json and does not concern the others. Returns the folders that failed.
    """
    copies: dict[Path, Copy] = {}
    failed: list[Path] = []

    def fail(directory: Path, error: Exception) -> None:
        write_json(directory / "wandb.json", {"pid": os.getpid(), "error": one_line(error)})
        failed.append(directory)

    with contextlib.ExitStack() as locks:
        for directory in directories:
            try:
                locks.enter_context(mirror_lock(directory, seconds=None))
                copies[directory] = copy = Copy(directory, target, first=not copies)
                if copy.reason is not None:  # no key, no server: the next one need not wait to find that out
                    target = replace(target, mode="offline", reason=copy.reason)
            except Exception as error:
                fail(directory, error)
        while copies:
            lives = run_lives()
            for directory, copy in list(copies.items()):
                try:
                    if copy.follow(lives) is not None:
                        del copies[directory]
                except Exception as error:
                    del copies[directory]
                    fail(directory, error)
    return failed


class Copy:
    """The W&B run of one folder, open. Its methods raise ResourceError where W&B fails."""

    def __init__(self, directory: Path, target: Target, *, first: bool = True) -> None:
        """Raises as `mirror` does."""
        self._directory = directory
        self._run, self.reason = open_run(directory, target, first=first)
        offline = self._run.offline
        self._mode = "offline" if offline else "online"
        url = None if offline else self._run.url
        self._said: dict[str, Any] = {"pid": os.getpid(), "mode": self._mode, "reason": self.reason, "url": url}
        write_json(directory / "wandb.json", self._said)
        self._follower = Follower(directory / "rows.jsonl")
        self._logged = 0
        self._newest: dict[str, Any] = {} if offline else _newest_on_server(self._run)
        self._on_server = int(self._newest.get("seq", -1))

    def follow(self, lives: bool) -> Mirrored | None:
        """Log the rows that have come; finish and answer with what was made once the run has ended.

        lives: whether the run's process did just now.
        """
        exit_code = _exit_code(self._directory, lives)  # before the rows: after the end none can come
        for row in self._follower.new_rows():
            if row["seq"] == self._on_server and _differs(_as_numbers(row), self._newest):
                self._said["differs"] = f"its rows up to env_steps={row['env_steps']} are others than this run's"
                write_json(self._directory / "wandb.json", self._said)
            if row["seq"] > self._on_server:
                with as_resource_error(self._directory):
                    self._run.log(_as_numbers(row))
                self._logged += 1
        if exit_code is None:
            return None
        with as_resource_error(self._directory):
            self._run.finish(exit_code=exit_code)
        write_json(self._directory / "wandb.json", self._said | {"rows": self._logged, "exit_code": exit_code})
        return Mirrored(self._mode, self.reason, self._logged, exit_code, self._said.get("differs"))


def _newest_on_server(run: "wandb.Run") -> dict[str, Any]:
    """The last value of each metric that a server has."""
    summary: Any = run.summary  # W&B gives it no types
    return _as_numbers({str(key): summary.get(key) for key in summary.keys()})  # noqa: SIM118


def _differs(row: dict[str, Any], newest: dict[str, Any]) -> bool:
    """Whether a row that a server has is not the one that the run has made anew; times may differ.

    A continued run that is exact makes equal rows: then what the server has is this run's.
    """
    return any(
        key in newest and newest[key] != value and not (value != value and newest[key] != newest[key])
        for key, value in row.items()
        if not key.startswith("time/")
    )


class Follower:
    """The good rows of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_rows(self) -> Iterator[dict[str, Any]]:
        """Rows since the last call. A torn line ends them: it is still being written, or nothing good follows."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                row = parse_row(line)
                if row is None:
                    return
                self._offset += len(line)
                yield row


def _as_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: rows hold their names."""
    return {key: float(value) if value in NOT_FINITE else value for key, value in row.items()}


def _exit_code(directory: Path, lives: bool) -> int | None:
    """The exit code of a run that has ended, None while it goes on.

    lives: asked before this, for a run writes its status before it ends.
    """
    status = read_status(directory)
    if status.get("state", "running") == "running":
        return None if lives else UNKNOWN_END
    return 0 if status["state"] == "finished" else int(status.get("exit_code") or UNKNOWN_END)


if __name__ == "__main__":
    main()
