"""What a run cost, and whether it is still exact."""

from pathlib import Path

import pytest
import torch

from rlexp import storage
from rlexp.errors import StorageError
from rlexp.storage import read_json
from tests.experiment.support import TINY, run_in

LINE = [*TINY, "algorithm=dqn", "experience.learning_starts=100", "checkpoint.interval=200", "total_env_steps=900"]


def stop_after_checkpoint(monkeypatch: pytest.MonkeyPatch, env_steps: int) -> None:
    """Storage fails at the first write after the checkpoint at `env_steps` stands."""
    seen = []

    def fail(name: str, path: Path) -> None:
        if seen:
            raise StorageError("the disk is gone")
        if name == "rename" and path.name == f"{env_steps:015d}":
            seen.append(path)

    monkeypatch.setattr(storage, "before_operation", fail)


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after_checkpoint(patch, 400)
        with pytest.raises(StorageError, match="the disk is gone"):
            run_in(tmp_path, *LINE)


def test_an_undisturbed_run_is_exact_and_knows_its_cost(tmp_path: Path) -> None:
    record = read_json(run_in(tmp_path, *LINE) / "sessions.json")
    assert record["exact"] is True
    assert record["inexact"] == []
    (session,) = record["sessions"]
    assert session["from_env_steps"] == 0
    assert session["arithmetic"]["device"] == "cpu"
    assert session["arithmetic"]["threads"] == 1
    assert record["cost"]["cpu_s"] > 0
    assert record["cost"]["wall_s"] == session["cost"]["wall_s"] > 0
    assert session["cost"]["peak_memory_bytes"] > 50e6


def test_continuing_in_the_same_way_stays_exact_and_adds_the_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, monkeypatch)
    record = read_json(run_in(tmp_path, *LINE) / "sessions.json")
    assert record["exact"] is True
    assert [session["from_env_steps"] for session in record["sessions"]] == [0, 400]
    assert record["cost"]["wall_s"] == pytest.approx(sum(s["cost"]["wall_s"] for s in record["sessions"]), abs=2e-3)


def test_another_number_of_threads_ends_exactness_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, monkeypatch)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)  # two would stay for the tests after this one
    record = read_json(run_in(tmp_path, *LINE, "execution.threads=2", "display=plain") / "sessions.json")
    assert threads == [2]
    assert record["exact"] is False
    assert record["inexact"] == ["threads 1 -> 2 at env_steps=400"]
    assert "this run is no longer exact: threads 1 -> 2 at env_steps=400" in capsys.readouterr().err
