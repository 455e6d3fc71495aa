"""How a run that was told to stop must have ended."""

from pathlib import Path

from rlexp.experiment.status import read_status
from rlexp.storage.checkpoints import load_tree
from tests.faults.lab import SMALL, run_below

ENDLESS = [*SMALL, "total_env_steps=100_000_000", "checkpoint.interval=50_000_000", "evaluation.interval=50_000_000"]
"""A run that saves only where it is told to stop."""


def checkpoints(outputs: Path) -> list[Path]:
    folder = run_below(outputs)
    return [] if folder is None else sorted((folder / "checkpoints").iterdir())


def assert_saved(outputs: Path, code: int, errors: list[str]) -> None:
    """One line, one checkpoint of the end, and a status that says the same."""
    folder = run_below(outputs)
    assert folder is not None
    status = read_status(folder)
    assert (status["state"], status["exit_code"]) == ("interrupted", code)
    last = checkpoints(outputs)[-1]
    assert load_tree(last)
    assert len(errors) == 1
    assert f"rlexp: error[{code}]: " in errors[0]
    assert f"saved at env_steps={int(last.name)}; the same command continues" in errors[0]
