"""How runs and sweeps stand, read from their folders alone. Nothing is made, and no run is hindered; no torch."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlexp.errors import ConfigError, StorageError
from rlexp.experiment.plans import FOLDER, Plan, Planned, read_plan, read_plans
from rlexp.experiment.status import RUNNING, read_status
from rlexp.storage import read_json
from rlexp.storage.locks import is_locked
from rlexp.storage.rows import parse_row

KILLED, WAITING = "killed", "waiting"
TAIL = 65536  # bytes at the end of the rows that hold the last one
MARKS = ("config.yaml", "run.json", "status.json")
"""A folder with one of these is a run's."""


class Standing(NamedTuple):
    """One run. What is not known yet is None.

    state: finished, running, interrupted, failed, killed (it says that it runs and no process holds it) or waiting
    (planned by a sweep and not begun).  final_return: of the final weights.  wall_s: as of the last checkpoint.
    """

    folder: Path
    name: str
    state: str
    env_steps: int | None = None
    total_env_steps: int | None = None
    final_return: float | None = None
    wall_s: float | None = None
    exit_code: int | None = None
    error: str | None = None


def standing_of(folder: Path, planned: Planned | None = None) -> Standing:
    """How one run stands; `planned`: the job of a sweep that makes it."""
    name = planned.name if planned is not None else ""
    total = planned.total_env_steps if planned is not None else None
    if not is_run(folder):
        return Standing(folder, name, WAITING, None, total)
    state, status = read_state(folder)
    results = _mapping(status.get("results"))
    return Standing(
        folder,
        name or str(_read(folder / "run.json").get("name", "")),
        state,
        reached(folder),
        total if total is not None else _total(folder),
        _number(_mapping(results.get("final")).get("return")),
        _number(_mapping(_read(folder / "sessions.json").get("cost")).get("wall_s")),
        status.get("exit_code"),
        status.get("error") or ("its process ended without a word; start it again" if state == KILLED else None),
    )


def is_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in MARKS)


def read_state(folder: Path) -> tuple[str, dict[str, Any]]:
    """A run's state and its status.json.

    A run writes its last status before it lets go of its lock: one that is free makes the status read after it final.
    """
    status = read_status(folder)
    if status.get("state", RUNNING) != RUNNING or _is_held(folder):
        return status.get("state", RUNNING), status
    status = read_status(folder)
    state = status.get("state", RUNNING)
    return (KILLED if state == RUNNING else state), status


def _is_held(folder: Path) -> bool:
    """A seed of several is held by the run that trains them, in the folder above."""
    return is_locked(folder) or (folder.parent.name.startswith("seeds_") and is_locked(folder.parent))


def reached(folder: Path) -> int | None:
    """env_steps of the last good row."""
    try:
        with open(folder / "rows.jsonl", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    row = next((row for line in reversed(lines) if (row := parse_row(line)) is not None), None)
    return None if row is None else row.get("env_steps")


def standings(directory: Path) -> tuple[list[Standing], list[Plan]]:
    """The runs under a folder (outputs, one in it, a run's, a sweep's), and the sweeps that they are of.

    Raises ConfigError where the folder is not there, or holds neither runs nor a sweep.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such folder")
    plan = read_plan(directory)
    plans = [plan] if plan is not None else _plans_about(directory)
    jobs = {job.folder.resolve(): job for plan in plans for job in plan.jobs}
    if plan is not None:
        folders = list(jobs)
    else:
        here = directory.resolve()
        folders = sorted({*_runs(here, 3), *(folder for folder in jobs if folder.is_relative_to(here))}, key=_in_order)
    if not folders:
        raise ConfigError(f"{directory}: holds no run; name outputs, a folder in it, or a run's")
    shown = set(folders)
    concerned = [plan for plan in plans if any(job.folder.resolve() in shown for job in plan.jobs)]
    return [standing_of(folder, jobs.get(folder)) for folder in folders], concerned


def _in_order(path: Path) -> list[tuple[int, str]]:
    """s2 before s10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _plans_about(directory: Path) -> list[Plan]:
    """Runs lie three folders below the outputs folder, which holds the plans."""
    here = directory.resolve()
    home = next((folder for folder in [here, *here.parents[:3]] if (folder / FOLDER).is_dir()), None)
    return [] if home is None else read_plans(home)


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        if folder.name.startswith("seeds_"):
            yield from (child for child in folder.glob("s*") if is_run(child))
    elif depth:
        for child in folder.iterdir():
            if child.is_dir() and not child.name.startswith(".") and child.name != "wandb":
                yield from _runs(child, depth - 1)


def _total(folder: Path) -> int | None:
    try:
        total = yaml.safe_load((folder / "config.yaml").read_text())["total_env_steps"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return total if isinstance(total, int) else None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(read_json(path))
    except StorageError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Numbers that are not finite are written by their names."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
