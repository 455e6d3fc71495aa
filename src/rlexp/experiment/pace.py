"""How long runs will take, from what earlier ones took: a line for a person, no promise. No torch."""

from collections.abc import Sequence
from pathlib import Path

from rlexp.experiment.standing import is_run, standing_of
from rlexp.experiment.status import FINISHED

NEWEST = 20  # earlier runs of a kind that are looked at


class Pace:
    """Seconds per environment step of each kind of run (algorithm and environment).

    Runs that ended in this sweep count alone once there are some: they met the load that the next ones will meet.

    launch: seconds that starting a run takes, which the costs of earlier runs do not hold.
    """

    def __init__(self, launch: float = 0.0) -> None:
        self._launch = launch
        self._earlier: dict[Path, tuple[float, int, int]] = {}  # kind: seconds, env_steps, number of runs
        self._here: dict[Path, tuple[float, int, int]] = {}

    def look_back(self, experiments: Sequence[Path]) -> int:
        """Read the finished runs beside those to come. Returns how many were found.

        experiments: `outputs/<algorithm>_<env>/<hash>` of the runs to come; where the very experiment has finished
        runs, they count alone.
        """
        for kind in {experiment.parent for experiment in experiments}:
            same = [experiment for experiment in experiments if experiment.parent == kind and experiment.is_dir()]
            found = _costs(same) or _costs([folder for folder in _children(kind) if folder not in same])
            if found:
                seconds, steps = (sum(column) for column in zip(*found, strict=True))
                self._earlier[kind] = (float(seconds), int(steps), len(found))
        return sum(count for _, _, count in self._earlier.values())

    def note(self, experiment: Path, seconds: float, env_steps: int) -> None:
        """A run of this sweep has taken so long for so many steps."""
        if env_steps > 0:
            before = self._here.get(experiment.parent, (0.0, 0, 0))
            self._here[experiment.parent] = (before[0] + seconds, before[1] + env_steps, before[2] + 1)

    def seconds(self, experiment: Path, env_steps: int) -> float | None:
        """What a run of so many steps will take; None where nothing at all is known.

        A kind of which nothing is known is taken for the mean of the others.
        """
        here = self._here.get(experiment.parent)
        known = here or self._earlier.get(experiment.parent)
        if known is None:
            here = _mean([*self._here.values()])
            known = here or _mean([*self._earlier.values()])
        if known is None:
            return None
        return known[0] / known[1] * env_steps + (self._launch if here is None else 0.0)


def seconds_left(waiting: Sequence[float], running: Sequence[float], at_once: int) -> float:
    """Seconds until all have ended. waiting, running: what each still takes alone, at_once: how many go together."""
    longest = max([*waiting, *running], default=0.0)
    return max(longest, (sum(waiting) + sum(running)) / max(1, min(at_once, len(waiting) + len(running))))


def _mean(known: Sequence[tuple[float, int, int]]) -> tuple[float, int, int] | None:
    if not known:
        return None
    seconds, steps, runs = zip(*known, strict=True)
    return sum(seconds), sum(steps), sum(runs)


def _costs(experiments: Sequence[Path]) -> list[tuple[float, int]]:
    """(wall seconds, env_steps) of the newest finished runs."""
    runs = [run for experiment in experiments for run in _children(experiment) if is_run(run)]
    runs.sort(key=lambda run: run.stat().st_mtime, reverse=True)
    stands = [standing_of(run) for run in runs[:NEWEST]]
    return [(s.wall_s, s.env_steps) for s in stands if s.state == FINISHED and s.wall_s and s.env_steps]


def _children(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def clock(seconds: float) -> str:
    """0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
