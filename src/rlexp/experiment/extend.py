"""`extend=RUN total_env_steps=N`: a new run that goes on from the end of a finished one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlexp.errors import ConfigError, StorageError
from rlexp.experiment.sources import refuse_boundless
from rlexp.experiment.status import FINISHED, read_status
from rlexp.storage import copy_tree
from rlexp.storage.checkpoints import load_tree, save_tree

CHANGEABLE = (
    "plugins",
    "extend",
    "total_env_steps",
    "display",
    "outputs",
    "device",
    "execution",
    "logger",
    "checkpoint",
    "tags",
    "restart",
)


def read_config(run: Path) -> dict[str, Any]:
    """The configuration that a run was begun with; raises ConfigError where the folder holds none."""
    try:
        refuse_boundless(run / "config.yaml")
        config = yaml.safe_load((run / "config.yaml").read_text())
    except ConfigError as error:
        raise ConfigError(f"{run}: is not the folder of a run ({error})") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{run}: is not the folder of a run (config.yaml: {error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{run / 'config.yaml'}: is not a configuration")
    return {"normalization": None, **config}  # a run of before there was such a group


def extended_config(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run named by `extend`, with what may change taken from `config`.

    Raises ConfigError where the run is not finished, N is not larger, or another key was overridden.
    """
    parent = Path(str(config["extend"]))
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.split(".")[0] not in CHANGEABLE:
            raise ConfigError(f"{key}: cannot change when a run is extended; only {', '.join(CHANGEABLE)} can")
    base = read_config(parent)
    if read_status(parent).get("state") != FINISHED:
        raise ConfigError(f"extend={parent}: is not finished; run its own command again to continue it")
    done = base.get("total_env_steps")
    if not isinstance(done, int) or config["total_env_steps"] <= done:
        raise ConfigError(f"total_env_steps={config['total_env_steps']}: must exceed the {done} of {parent}")
    reached = max((int(path.name) for path in (parent / "checkpoints").glob("[0-9]*")), default=None)
    if reached is None:
        why = ": seeds that were trained together have theirs in common" if _is_stacked(parent) else ""
        raise ConfigError(f"extend={parent}: has no checkpoint to go on from{why}; extend the run of a seed alone")
    if config["total_env_steps"] <= reached:
        raise ConfigError(f"total_env_steps={config['total_env_steps']}: must exceed the {reached} reached by {parent}")
    changed = {key: config[key] for key in CHANGEABLE if key in config}
    return base | changed | {"extend": str(parent.resolve())}


def _is_stacked(folder: Path) -> bool:
    return folder.resolve().parent.name.startswith("seeds_")


def adopt_parent(config: Mapping[str, Any], directory: Path) -> None:
    """Copy what the extended run left (rows, sessions, best weights, checkpoint) into a folder without checkpoint.

    The checkpoint comes last, and whole or not at all: it marks that the rest is there.
    """
    if config["extend"] is None or any((directory / "checkpoints").iterdir()):
        return
    parent = Path(config["extend"])
    newest = max((parent / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name), default=None)
    if newest is None:
        raise StorageError(f"{parent}: has no checkpoint to go on from")
    copy_tree(parent / "rows.jsonl", directory / "rows.jsonl")
    if (parent / "sessions.json").exists():
        copy_tree(parent / "sessions.json", directory / "sessions.json")
    if (parent / "weights" / "best").exists():
        save_tree(directory / "weights" / "best", load_tree(parent / "weights" / "best"))
    save_tree(directory / "checkpoints" / newest.name, load_tree(newest))
