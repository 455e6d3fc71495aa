"""The laboratory itself: a run that nothing is done to, and one that is killed."""

import signal
from pathlib import Path

from tests.faults.lab import SMALL, Launched, processes_of_group, rows_below, run_below, wait_until


def test_a_run_left_alone_finishes(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    run = Launched(tmp_path / "said", *SMALL, f"outputs={outputs}")
    wait_until(lambda: rows_below(outputs) > 2, what="the third row")
    assert run.running() or run.end() == 0
    assert run.end() == 0
    assert run_below(outputs) is not None
    assert processes_of_group(run.pid) == []


def test_a_killed_run_has_its_signals_status(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    run = Launched(tmp_path / "said", *SMALL, "total_env_steps=1_000_000", f"outputs={outputs}")
    wait_until(lambda: rows_below(outputs) > 0, what="the first row")
    run.send(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
