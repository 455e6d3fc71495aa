"""SIGKILL at random moments, at every operation on the disk, and between any two things that belong together."""

import os
import posix
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from kill_storm import ALGORITHMS, CASES, SHORT, Tally, difference, live, remains, storm

from rlexp.experiment.checkpoint import Checkpointer
from rlexp.experiment.members import Failures
from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree, reap_unfinished, save_tree
from rlexp.storage.rows import RowLog, read_rows
from rlexp.types import Progress
from tests.faults.lab import SMALL, Launched, processes_of_group, rows_below, run_below, wait_until
from tests.faults.tracing import STRACE, traced

ELSEWHERE = {
    "F1": ["tests/experiment/test_resume.py::test_killed_runs_equal_the_undisturbed_one"],
    "F2": ["tests/test_storage_trees.py::test_a_kill_at_any_operation_leaves_the_old_or_the_new_version"],
}
PPO = [*CASES["ppo"], "total_env_steps=1500"]


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests do without."""
    monkeypatch.setattr(os, "fsync", posix.fsync)


# ------------------------------------------------------------------------------------------------- F1: at any moment


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_f1_runs_killed_at_random_equal_the_undisturbed_one(algorithm: str, tmp_path: Path) -> None:
    """SIGKILL at random moments until done: bit for bit the undisturbed run, and no row lost or doubled."""
    tally = storm(algorithm, 2, 1, tmp_path)
    assert (tally.kills, tally.difference) == (2, None)
    assert (tally.rows_lost, tally.rows_doubled) == (0, 0)
    assert tally.rows > 10


def test_f1_a_group_killed_with_its_workers_equals_the_undisturbed_run(tmp_path: Path) -> None:
    """SIGKILL to a run and its workers together, the same command until it is done: equal to one without workers."""
    line = [*SHORT, *CASES["ppo"], "experience.num_envs=2", "total_env_steps=3000", "checkpoint.interval=300"]
    assert live(line, tmp_path / "undisturbed") == 0
    outputs, chance = tmp_path / "killed", random.Random(3)
    words = [*line, "execution.vector=async", "execution.workers=2", f"outputs={outputs}"]
    for life in range(2):
        run, had = Launched(tmp_path / f"said{life}", *words), rows_below(outputs)
        wait_until(lambda had=had: rows_below(outputs) > had + 3, what="more rows")
        time.sleep(chance.uniform(0, 0.1))
        run.send(signal.SIGKILL, to_group=True)
        assert run.end() == -signal.SIGKILL
        assert processes_of_group(run.pid) == []
    assert Launched(tmp_path / "said", *words).end() == 0
    assert difference(remains(line, tmp_path / "undisturbed"), remains(line, outputs)) is None


def test_the_counts_of_the_storm_see_what_is_lost_or_doubled(tmp_path: Path) -> None:
    """It is not a promise: a row taken away and one put in twice are counted, and the run is said to differ."""
    line = [*SHORT, *CASES["value_iteration"]]
    for name in ("undisturbed", "killed"):
        assert live(line, tmp_path / name) == 0
    (path,) = (tmp_path / "killed").rglob("rows.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[2], *lines[4:]]))
    tally = Tally()
    assert not tally.compare(line, tmp_path / "undisturbed", tmp_path / "killed")
    assert (tally.rows_lost, tally.rows_doubled, tally.differing_runs) == (1, 1, 1)


# -------------------------------------------------------------------------------------------- F2: inside a checkpoint

OLD, NEW = {"version": "old", "x": torch.zeros(400)}, {"version": "new", "x": torch.ones(400)}
CALLS = ("mkdir", "openat", "write", "fsync", "rename", "chmod", "unlinkat", "rmdir", "close")


@STRACE
@pytest.mark.parametrize("replace", [False, True], ids=["beside the old", "in its place"])
def test_f2_killed_at_every_system_call_of_a_save(replace: bool, tmp_path: Path) -> None:
    """SIGKILL at each system call of a save: the previous or the new one loads, and the next start removes the rest."""

    def prepare(folder: Path) -> Callable[[], object]:
        folder.mkdir()
        save_tree(folder / "1", OLD)
        return lambda: save_tree(folder / ("1" if replace else "2"), NEW)

    counts = traced(prepare(tmp_path / "whole"), CALLS, tmp_path / "trace")
    assert counts["fsync"] >= 5
    assert counts["rename"] >= 1
    found = []
    for call, count in counts.items():
        for n in range(1, count + 1):
            folder = tmp_path / f"{call}{n}"
            traced(prepare(folder), CALLS, tmp_path / "trace", kill=(call, n))
            for _ in range(2):
                newest = max((path for path in folder.glob("[0-9]*")), default=folder / "1")
                found.append(load_tree(newest)["version"])
                assert load_tree(folder / "1")["version"] in ("old", "new")
                reap_unfinished(folder)
            assert {path.name for path in folder.iterdir()} in ({"1"}, {"1", "2"})
    assert {"old", "new"} == set(found)


# ------------------------------------------------------------------------------------ F3: between rows and checkpoint


def kill_after(operation: str, pattern: str, nth: int = 1) -> Callable[[str, Path], None]:
    """A hook: SIGKILL at the first operation on the disk after the n-th of this kind and path."""
    seen = 0

    def hook(name: str, path: Path) -> None:
        nonlocal seen
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += name == operation and pattern in str(path)

    return hook


@pytest.mark.parametrize(
    "hook",
    [
        kill_after("fsync", "rows.jsonl", 40),
        kill_after("rename", "checkpoints/0", 3),
        kill_after("fsync", "/checkpoints", 15),
        kill_after("remove", "checkpoints/0", 1),
    ],
    ids=["after a row", "after a checkpoint's rename", "inside a later checkpoint", "after a removal"],
)
def test_f3_killed_between_rows_and_checkpoint(hook: Callable[[str, Path], None], tmp_path: Path) -> None:
    """SIGKILL after a row, after a checkpoint, when an old one is removed: rows are cut and come out equal."""
    line = [*SHORT, *PPO]
    assert live(line, tmp_path / "undisturbed") == 0
    assert live(line, tmp_path / "killed", hook) == -signal.SIGKILL
    folder = run_below(tmp_path / "killed")
    assert folder is not None
    assert live(line, tmp_path / "killed") == 0
    assert difference(remains(line, tmp_path / "undisturbed"), remains(line, tmp_path / "killed")) is None
    assert read_json(folder / "sessions.json")["exact"] is True


def test_f3_a_row_that_comes_out_otherwise_is_said_and_ends_exactness(tmp_path: Path) -> None:
    """A row that is made again differs from the one that was cut: the run says so, goes on and is no longer exact."""
    outputs = tmp_path / "outputs"
    line = [*SMALL, "display=plain", f"outputs={outputs}"]
    assert live(line, outputs, kill_after("fsync", "rows.jsonl", 14)) == -signal.SIGKILL
    folder = run_below(outputs)
    assert folder is not None
    rows = read_rows(folder / "rows.jsonl")
    cut = next(row for row in reversed(rows) if row["kind"] == "train")
    (folder / "rows.jsonl").unlink()
    log = RowLog(folder / "rows.jsonl")
    for row in rows:
        log.append({k: v + 1e-9 if row is cut and k == "loss/actor" else v for k, v in row.items() if k != "seq"})
    log.close()
    run = Launched(tmp_path / "said", *line)
    assert run.end() == 0
    said = f"this run is no longer exact: the row at env_steps={cut['env_steps']} came out otherwise than before"
    assert len([line for line in run.errors() if line.startswith(said) and "loss/actor" in line]) == 1
    record = read_json(folder / "sessions.json")
    assert record["exact"] is False
    assert "came out otherwise" in record["inexact"][0]


def test_f3_rows_of_another_interval_are_not_compared(tmp_path: Path) -> None:
    """Continued with other intervals of rows and evaluations: nothing differs, and the run stays exact."""
    outputs = tmp_path / "outputs"
    assert live([*SMALL], outputs, kill_after("fsync", "rows.jsonl", 14)) == -signal.SIGKILL
    assert live([*SMALL, "logger.interval=80", "evaluation.episodes=1"], outputs) == 0
    folder = run_below(outputs)
    assert folder is not None
    assert read_json(folder / "sessions.json")["exact"] is True


# -------------------------------------------------------------------------------------------------- F4: while pruning


class Held:
    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(400)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        assert state["x"].sum() == 400


class Finite:
    """As much of a train state as a checkpointer asks for."""

    frozen: Sequence[bool] = [False]

    def finite(self) -> list[bool]:
        return [True]


def checkpointer(folder: Path) -> Checkpointer:
    return Checkpointer(folder, {"held": Held()}, 10, 1, Failures([0]), lambda line: None)


@STRACE
def test_f4_killed_at_every_system_call_of_a_save_that_removes_the_one_before(tmp_path: Path) -> None:
    """SIGKILL at each system call of a save with keep=1 and of the removal after it: always a whole checkpoint."""

    def prepare(folder: Path) -> Callable[[], object]:
        folder.mkdir()
        keeper = checkpointer(folder)
        keeper.save(Progress(10, 0, 100), Finite())
        return lambda: keeper.save(Progress(20, 0, 100), Finite())

    counts = traced(prepare(tmp_path / "whole"), CALLS, tmp_path / "trace")
    assert counts["unlinkat"] >= 3
    found = set()
    for call, count in counts.items():
        for n in range(1, count + 1):
            folder = tmp_path / f"{call}{n}"
            traced(prepare(folder), CALLS, tmp_path / "trace", kill=(call, n))
            reap_unfinished(folder)
            path, _ = checkpointer(folder).load_newest()
            assert path is not None
            found.add(int(path.name))
    assert found == {10, 20}
