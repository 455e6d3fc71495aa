"""How the jobs of a sweep are launched: `hydra/launcher=basic` or `joblib`, `hydra.launcher.n_jobs=N`.

The words are Hydra's and those of its joblib plugin, the work is ours (docs/sweeps.md says why).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rlexp.errors import ConfigError, nearest
from rlexp.experiment.compose import split_hydra

LAUNCHERS = ("basic", "joblib")
KEYS = ("hydra/launcher", "hydra.launcher.n_jobs")


@dataclass(frozen=True)
class Launcher:
    """processes: how many jobs run at once, each in a process of its own; None: one after the other, in this one."""

    processes: int | None = None


def split_launcher(arguments: Sequence[str], *, multirun: bool) -> tuple[Launcher, list[str]]:
    """The launcher that a command line chooses, and its other arguments. Raises ConfigError where it is not one."""
    steering, rest = split_hydra(arguments)
    chosen = {}
    for override in steering:
        key, line = override.key_or_group, override.input_line or ""
        if key.startswith(("hydra/sweeper", "hydra.sweeper")):
            raise ConfigError(f"{line}: a sweep is every combination of the values; leave it out")
        if not key.startswith(("hydra/launcher", "hydra.launcher")):
            rest.append(line)
            continue
        if key not in KEYS:
            raise ConfigError(f"{line}: unknown key{nearest(key, KEYS)}; a launcher has hydra.launcher.n_jobs")
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"{line}: must be one value")
        if not multirun:
            raise ConfigError(f"{line}: launches the jobs of a sweep; add -m")
        chosen[key] = override.value()
    return _launcher(chosen.get("hydra/launcher", "basic"), chosen.get("hydra.launcher.n_jobs")), rest


def _launcher(name: object, n_jobs: object) -> Launcher:
    if name not in LAUNCHERS:
        hint = nearest(str(name), LAUNCHERS)
        raise ConfigError(f"hydra/launcher={name}: there is no such launcher{hint}; choose {' or '.join(LAUNCHERS)}")
    if n_jobs is None:
        return Launcher(_cores() if name == "joblib" else None)
    if name == "basic":
        raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: is for hydra/launcher=joblib; add it, or leave this out")
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1):
        raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: must be a whole number from 1, or -1 for one a core")
    return Launcher(_cores() if n_jobs == -1 else n_jobs)


def _cores() -> int:
    """Cores that this process may use: a scheduler gives a job less than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
