"""The W&B run of one run's folder, made from its rows: `python -m rlexp.experiment.wandb_process RUN --parent PID`.

A process of its own follows `rows.jsonl` while the run goes on, so whatever W&B does (hang, fail, be slow), the run
does not notice. The rows are the truth and the W&B run a copy: a resumed run makes its offline copy anew from row 0,
and sends to a server the rows that it has not got. Nothing here imports torch.
"""

import argparse
import contextlib
import fcntl
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlexp.errors import ConfigError, ResourceError, StorageError
from rlexp.experiment.extend import read_config
from rlexp.experiment.identity import outputs_of
from rlexp.experiment.status import read_status
from rlexp.storage import parse_row, read_json, remove, write_json

if TYPE_CHECKING:
    import wandb

POLL = 0.5  # seconds between looks at the rows
UNKNOWN_END = 1  # exit code of a run that ended without a word: killed, or its disk was full
INIT_TIMEOUT = 60.0  # seconds that a server has to answer before the mirror goes on offline
FINISH_TIMEOUT = 600.0  # seconds for the last uploads; what is late stays on the disk
QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}  # the first: no name look-up when offline
DEFAULT_PROJECT = "rlexp"
NOT_FINITE = ("NaN", "Infinity", "-Infinity")


@dataclass(frozen=True)
class Target:
    """Where a W&B run goes. mode "auto": as W&B itself is configured, offline where that needs a key and has none."""

    mode: str
    project: str
    entity: str | None


@dataclass(frozen=True)
class Mirrored:
    """A W&B run that was made: "online" or "offline", why not online, how many rows were logged, the exit code."""

    mode: str
    reason: str | None
    rows: int
    exit_code: int


def main() -> None:
    """The process: mirror the run of the process `--parent`, and say in the run's wandb.json what became of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a scheduler tells all processes of a job; this one ends after the run
    os.nice(10)
    target = Target(options.mode, options.project, options.entity)
    code = 0
    try:
        with mirror_lock(options.directory, seconds=None):
            mirror(options.directory, target, lambda: _parent_lives(options.parent))
    except Exception as error:
        write_json(options.directory / "wandb.json", {"pid": os.getpid(), "error": _one_line(error)})
        code = 1
    if "wandb" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["wandb"].teardown()
    os._exit(code)  # to take apart all that W&B imported takes 0.2 s, for which the run would wait


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


@contextlib.contextmanager
def _as_resource_error(directory: Path) -> Iterator[None]:
    """W&B's own failures, which are many, as one."""
    try:
        yield
    except Exception as error:
        raise ResourceError(f"{directory}: W&B failed: {_one_line(error)}; the rows are safe, try again") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def mirror(directory: Path, target: Target, run_lives: Callable[[], bool]) -> Mirrored:
    """Log the rows of a run's folder as they come, until the run has ended, and finish with its exit code.

    run_lives: is asked before each look at the rows; it may wait for the run's end as long as rows may wait.
    Raises ConfigError where the folder is not a run's or W&B is switched off, ResourceError where W&B fails.
    """
    run, reason = _open_run(directory, target)
    mode = "offline" if run.offline else "online"
    said = {"pid": os.getpid(), "mode": mode, "reason": reason, "url": None if run.offline else run.url}
    write_json(directory / "wandb.json", said)
    follower = Follower(directory / "rows.jsonl")
    logged = 0
    on_server = -1 if run.offline else _last_on_server(run)
    while True:
        exit_code = _exit_code(directory, run_lives)  # before the rows: after the end none can come
        for row in follower.new_rows():
            if row["seq"] > on_server:
                with _as_resource_error(directory):
                    run.log(_as_numbers(row))
                logged += 1
        if exit_code is not None:
            break
    with _as_resource_error(directory):
        run.finish(exit_code=exit_code)
    write_json(directory / "wandb.json", said | {"rows": logged, "exit_code": exit_code})
    return Mirrored(mode, reason, logged, exit_code)


def _last_on_server(run: "wandb.Run") -> int:
    summary: Any = run.summary  # W&B gives it no types
    return int(summary.get("seq", -1))


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


def _exit_code(directory: Path, run_lives: Callable[[], bool]) -> int | None:
    """The exit code of a run that has ended, None while it goes on."""
    lives = run_lives()  # before the status: a run writes it before it ends
    status = read_status(directory)
    if status.get("state", "running") == "running":
        return None if lives else UNKNOWN_END
    return 0 if status["state"] == "finished" else int(status.get("exit_code") or UNKNOWN_END)


# ------------------------------------------------------------------------------------------------------------ the run


def _open_run(directory: Path, target: Target) -> "tuple[wandb.Run, str | None]":
    """A W&B run that waits for rows, and why it is offline where it might have been online."""
    os.environ.update(QUIET)
    os.environ.pop("WANDB_SERVICE", None)  # a parent that uses W&B itself: its service is not ours
    described = describe(directory) | {"project": target.project, "entity": target.entity}
    mode: Any = None if target.mode == "auto" else target.mode
    reason = None
    with _as_resource_error(directory):
        import wandb

        settings = _settings(wandb)
        try:
            run = wandb.init(mode=mode, resume="allow", settings=settings, **described)
        except Exception as error:  # no key, a wrong one, no server: the copy is made all the same, to be sent later
            if target.mode == "offline":
                raise
            reason = _one_line(error)
            wandb.teardown()  # or the attempt would still hold the run's id
            run = wandb.init(mode="offline", settings=settings, **described)
    if run.disabled:
        raise ConfigError("W&B is switched off (WANDB_MODE=disabled, or its own settings file)")
    run.define_metric("env_steps")
    run.define_metric("*", step_metric="env_steps")  # never `step=`: W&B drops a row whose step is not larger
    _remove_older(outputs_of(directory) / "wandb", str(described["id"]), Path(run.dir).parent)
    return run, reason


def describe(directory: Path) -> dict[str, Any]:
    """What W&B shows of a run's folder: its configuration (nested, so that it filters), name, group and tags.

    Raises ConfigError where the folder is not one of a run.
    """
    config = read_config(directory)
    try:
        facts = read_json(directory / "run.json")
        tags = [config["algorithm"]["_target_"].rpartition(".")[2].lower(), config["env"]["id"], *config["tags"]]
        identity = {"id": facts["wandb_id"], "name": facts["name"], "group": facts["group"]}
    except (StorageError, KeyError, TypeError) as error:
        raise ConfigError(f"{directory}: is not the folder of a run ({error})") from error
    kept = dict.fromkeys(tag[:64] for tag in tags if tag)  # W&B's limit
    return {"dir": str(outputs_of(directory)), "config": config, "tags": list(kept), **identity}


def _settings(wandb: Any) -> Any:
    """Rows and the configuration: no statistics of the machine, no code, no command line, no captured output."""
    return wandb.Settings(
        console="off",
        silent=True,
        symlink=False,
        use_dot_wandb=False,
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        allow_val_change=True,
        reinit="create_new",
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
    )


def _remove_older(folder: Path, run_id: str, kept: Path) -> None:
    """Leave one local copy of a run: it holds every row, or a server does. A failed attempt's folder goes, too."""
    for path in folder.glob(f"*run-*-{run_id}*"):
        if re.fullmatch(rf"(offline-)?run-[\d_]+-{run_id}(-\d+)?", path.name) and path.resolve() != kept.resolve():
            remove(path)


if __name__ == "__main__":
    main()
