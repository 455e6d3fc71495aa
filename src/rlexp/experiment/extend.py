"""`extend=RUN total_env_steps=N`: a new run that goes on from the end of a finished one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlexp.errors import ConfigError, StorageError
from rlexp.storage import copy_tree, read_json

CHANGEABLE = (
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
        config = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{run}: is not the folder of a run (config.yaml: {error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{run / 'config.yaml'}: is not a configuration")
    return config


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
    try:
        finished = read_json(parent / "status.json").get("state") == "finished"
    except StorageError:
        finished = False
    if not finished:
        raise ConfigError(f"extend={parent}: is not finished; run its own command again to continue it")
    if config["total_env_steps"] <= base["total_env_steps"]:
        raise ConfigError(
            f"total_env_steps={config['total_env_steps']}: must exceed the {base['total_env_steps']} of {parent}"
        )
    return base | {key: config[key] for key in CHANGEABLE if key in config}


def adopt_parent(config: Mapping[str, Any], directory: Path) -> None:
    """Copy rows, checkpoints and weights of the extended run into a folder that has no checkpoint yet."""
    if config["extend"] is None or any((directory / "checkpoints").iterdir()):
        return
    parent = Path(config["extend"])
    for name in ("rows.jsonl", "weights", "checkpoints"):  # checkpoints last: they mark that the rest is there
        copy_tree(parent / name, directory / name)
