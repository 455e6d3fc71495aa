"""The plan of a sweep, `<outputs>/.multirun/<id>/plan.json`: which runs it is made of. Nothing here imports torch."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlexp.errors import ConfigError, StorageError
from rlexp.experiment.identity import human_name
from rlexp.redaction import redacted
from rlexp.storage import make_directory, read_json, write_json
from rlexp.storage.locks import is_locked

FOLDER = ".multirun"
FILE = "plan.json"


@dataclass(frozen=True)
class Planned:
    """A job of a sweep.

    number: from 1.  name: what differs from the other jobs.  folder: where its run lies or will lie.
    """

    number: int
    name: str
    folder: Path
    overrides: tuple[str, ...]
    total_env_steps: int


@dataclass(frozen=True)
class Plan:
    """folder: the sweep's own, with the plan and what the jobs said.  command: the words after `rlexp`."""

    folder: Path
    command: tuple[str, ...]
    jobs: tuple[Planned, ...]

    def is_at_work(self) -> bool:
        return is_locked(self.folder)

    def log(self, job: Planned) -> Path:
        """Where a job with a process of its own says what it has to say."""
        return self.folder / f"job_{job.number}.log"


def job_names(overrides: Sequence[Sequence[str]], seeds: Sequence[int | Sequence[int]]) -> list[str]:
    """A job is called by the overrides that differ within the sweep, and its seeds; by all where only seeds differ."""
    differing = {line for job in overrides for line in job} - set(overrides[0]).intersection(*overrides)
    names = []
    for job, seed in zip(overrides, seeds, strict=True):
        told = [line for line in job if line in differing and line.partition("=")[0] not in ("seed", "seeds")]
        names.append(human_name(told or job, seed))
    return names


def refuse_duplicates(folders: Sequence[Path], overrides: Sequence[Sequence[str]]) -> None:
    """Raises ConfigError where two jobs are the same run: the second would find it finished, or in use."""
    first: dict[Path, int] = {}
    for number, (folder, words) in enumerate(zip(folders, overrides, strict=True), start=1):
        if folder in first:
            twin = first[folder]
            differing = sorted(set(words) - set(overrides[twin - 1]))
            why = f"{' '.join(differing)} makes no other experiment" if differing else "a value stands there twice"
            raise ConfigError(f"jobs {twin} and {number} of a sweep are the same run ({folder}): {why}; leave one out")
        first[folder] = number


def write_plan(outputs: Path, command: Sequence[str], jobs: Sequence[Planned]) -> Plan:
    """The same runs make the same plan, so the same command again goes on in the same folder."""
    relative = [os.path.relpath(job.folder, outputs) for job in jobs]
    identity = hashlib.sha256("\n".join(relative).encode()).hexdigest()[:8]
    plan = Plan(outputs / FOLDER / identity, tuple(command), tuple(jobs))
    make_directory(plan.folder)
    described = [
        {
            "number": job.number,
            "name": job.name,
            "folder": folder,
            "overrides": list(job.overrides),
            "total_env_steps": job.total_env_steps,
        }
        for job, folder in zip(jobs, relative, strict=True)
    ]
    write_json(plan.folder / FILE, redacted({"command": list(command), "jobs": described}))
    return plan


def read_plans(outputs: Path) -> list[Plan]:
    """The plans of an outputs folder that can be read."""
    found = (read_plan(path.parent) for path in sorted((outputs / FOLDER).glob(f"*/{FILE}")))
    return [plan for plan in found if plan is not None]


def read_plan(folder: Path) -> Plan | None:
    """The plan in a sweep's folder, None where there is none that can be read."""
    try:
        held = read_json(folder / FILE)
        return Plan(folder, tuple(held["command"]), tuple(_planned(job, folder.parents[1]) for job in held["jobs"]))
    except (StorageError, KeyError, TypeError, AttributeError):
        return None


def _planned(job: Mapping[str, object], outputs: Path) -> Planned:
    folder, overrides, steps = str(job["folder"]), job["overrides"], job["total_env_steps"]
    if not isinstance(overrides, list) or not isinstance(steps, int):
        raise TypeError(f"a job of a plan has overrides and total_env_steps, not {overrides} and {steps}")
    return Planned(int(str(job["number"])), str(job["name"]), outputs / folder, tuple(map(str, overrides)), steps)
