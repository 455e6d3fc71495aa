"""A W&B run that waits for a run's rows: how it is opened, what it is called, and what W&B is not to collect."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlexp.errors import ConfigError, ResourceError, StorageError
from rlexp.experiment.extend import read_config
from rlexp.experiment.identity import outputs_of
from rlexp.redaction import redact
from rlexp.storage import read_json, remove

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT = 60.0  # seconds that a server has to answer before the mirror goes on offline
FINISH_TIMEOUT = 600.0  # seconds for the last uploads; what is late stays on the disk
QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}  # the first: no name look-up when offline
DEFAULT_PROJECT = "rlexp"


@dataclass(frozen=True)
class Target:
    """Where a W&B run goes. mode "auto": as W&B itself is configured, offline where that needs a key and has none."""

    mode: str
    project: str
    entity: str | None
    reason: str | None = None  # why the mode is offline, where another one was wished


@contextlib.contextmanager
def as_resource_error(directory: Path) -> Iterator[None]:
    """W&B's own failures, which are many, as one."""
    try:
        yield
    except Exception as error:
        raise ResourceError(f"{directory}: W&B failed: {one_line(error)}; the rows are safe, try again") from error


def one_line(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__


def open_run(directory: Path, target: Target, *, first: bool = True) -> "tuple[wandb.Run, str | None]":
    """A W&B run that waits for rows, and why it is offline where it might have been online.

    first: whether this process has no other run open, which taking W&B down would end.
    """
    os.environ.update(QUIET)
    os.umask(os.umask(0o777) | 0o027)  # this process is W&B's: its files are as little for others as the run's own
    os.environ.pop("WANDB_SERVICE", None)  # a parent that uses W&B itself: its service is not ours
    described = describe(directory) | {"project": target.project, "entity": target.entity}
    mode: Any = None if target.mode == "auto" else target.mode
    reason = target.reason
    with as_resource_error(directory):
        import wandb

        settings = _settings(wandb)
        try:
            run = wandb.init(mode=mode, resume="allow", settings=settings, **described)
        except Exception as error:  # no key, a wrong one, no server: the copy is made all the same, to be sent later
            if target.mode == "offline":
                raise
            reason = one_line(error)
            if first:
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
