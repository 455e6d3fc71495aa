"""Small runs in this process."""

from pathlib import Path
from typing import Any

from rlexp.experiment.display import Display
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.run import run
from rlexp.storage import read_rows

TINY = [
    "total_env_steps=800",
    "logger=local",
    "display=none",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "evaluation.num_envs=2",
]
"""The first overrides of a run that takes less than a second."""


def run_in(outputs: Path, *overrides: str) -> Path:
    """Run a command line; later overrides of a key win. Returns the run's folder."""
    chosen = {override.partition("=")[0]: override for override in overrides}
    (job,) = checked_jobs([*chosen.values(), f"outputs={outputs}"], multirun=False)
    return run(job, Display(job.config["display"])).directory


def rows_of(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows without their number and their times."""
    rows = [row for row in read_rows(folder / "rows.jsonl") if kind in (None, row["kind"])]
    return [{key: value for key, value in row.items() if key != "seq" and not key.startswith("time/")} for row in rows]
