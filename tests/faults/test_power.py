"""The power fails: what was not synced is lost, and what was lost must not matter."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlexp import storage
from rlexp.errors import StorageError
from rlexp.experiment.checkpoint import Checkpointer
from rlexp.experiment.members import Failures
from rlexp.experiment.status import read_status
from rlexp.storage import make_directory, write_atomic
from rlexp.storage.checkpoints import load_tree, reap_unfinished, save_tree
from rlexp.storage.rows import RowLog, read_rows
from rlexp.types import Progress
from tests.experiment.support import TINY, rows_of, run_in
from tests.faults.crash_fs import CrashFS, Named, Synced, Written, fresh_folder

ELSEWHERE: dict[str, list[str]] = {}
NOT_INJECTED: dict[str, str] = {}

STATES = 200
"""Random states after a crash, of each save."""


def tree(version: int) -> dict[str, Any]:
    return {"version": version, "x": np.full(300, version), "y": torch.full((50,), float(version)), "z": ["text"] * 9}


def save_once(folder: Path) -> None:
    save_tree(folder / "a", tree(1))


def save_twice(folder: Path) -> None:
    save_once(folder)
    save_tree(folder / "a", tree(2))


def version_of(folder: Path) -> int:
    """Of what loads there, −1 where nothing lies there; a part of one is an error."""
    try:
        found = load_tree(folder / "a")
    except StorageError:
        assert not (folder / "a").exists(), sorted(folder.rglob("*"))
        return -1
    assert (found["x"] == found["version"]).all()
    return int(found["version"])


SAVES: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "the first": (save_once, [-1, 1]),
    "in the place of another": (save_once, [0, 1]),
    "twice in a row": (save_twice, [0, 1, 2]),
}


@pytest.mark.parametrize("kind", SAVES)
def test_f5_power_fails_during_a_save(kind: str, tmp_path: Path) -> None:
    """The power fails during a save, 200 times at random moments, and of all that was not synced a random part is
    lost: the version before it or the new one loads, whole; once the save has returned, the new one."""
    save, versions = SAVES[kind]
    root = tmp_path / "disk"
    root.mkdir()
    if 0 in versions:
        save_tree(root / "a", tree(0))
    with CrashFS(root) as disk:
        save(root)
    chance, found = random.Random(7), set()
    for _ in range(STATES):
        count = chance.randint(0, len(disk.events))
        with fresh_folder(tmp_path) as after:
            disk.after(count, chance, after)
            before_cleaning = version_of(after)
            reap_unfinished(after)
            version = version_of(after)
        assert before_cleaning == version
        assert version in versions
        assert count < len(disk.events) or version == versions[-1]
        found.add(version)
    assert found == set(versions)


def test_f5_power_fails_while_a_small_file_is_written(tmp_path: Path) -> None:
    """The power fails while a status, a configuration or an evaluation is written, 200 times: the old or the new one is
    there, whole; once the write has returned, the new one."""
    root = tmp_path / "disk"
    root.mkdir()
    (root / "status.json").write_text("old" * 500)
    with CrashFS(root) as disk:
        write_atomic(root / "status.json", "new" * 700)
    chance, found = random.Random(3), set()
    for _ in range(STATES):
        count = chance.randint(0, len(disk.events))
        with fresh_folder(tmp_path) as after:
            disk.after(count, chance, after)
            text = (after / "status.json").read_text()
        assert text in ("old" * 500, "new" * 700)
        assert count < len(disk.events) or text == "new" * 700
        found.add(text)
    assert len(found) == 2


def test_f5_power_fails_while_rows_come(tmp_path: Path) -> None:
    """The power fails while rows are logged, 200 times: every row whose call had returned is there, and what follows
    the good rows is not read."""
    root = tmp_path / "disk"
    root.mkdir()
    returned = []
    with CrashFS(root) as disk:
        make_directory(root / "run")
        log = RowLog(root / "run" / "rows.jsonl")
        for k in range(8):
            log.append({"env_steps": k, "text": "x" * 400})
            returned.append(len(disk.events))
        log.cut(5)
        cut = len(disk.events)
        log.append({"env_steps": 5, "text": "again"})
        log.close()
    chance = random.Random(5)
    for _ in range(STATES):
        count = chance.randint(0, len(disk.events))
        with fresh_folder(tmp_path) as after:
            disk.after(count, chance, after)
            rows = read_rows(after / "run" / "rows.jsonl")
        logged = sum(events <= count for events in returned)
        assert [row["env_steps"] for row in rows] == list(range(len(rows)))
        assert len(rows) >= (logged if count <= returned[-1] else 5)
        assert len(rows) <= 8 if count < cut else len(rows) in (5, 6)


class Counted:
    """A part of a checkpoint with a value that changes."""

    def __init__(self, log: RowLog) -> None:
        self.log = log
        self.values = np.zeros(100)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.log.next_seq, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log.cut(state["rows"])
        self.values = state["values"]


class Healthy:
    """A train state whose numbers are finite."""

    frozen = (False,)

    def finite(self) -> list[bool]:
        return [True]


@pytest.mark.parametrize("keep", [1, 2])
def test_f5_power_fails_between_rows_and_checkpoints(keep: int, tmp_path: Path) -> None:
    """The power fails in a run that logs, saves and removes old checkpoints, 200 times for each of five saves: once the
    first save has returned there is always a good checkpoint, and every row that it counts."""
    root = tmp_path / "disk"
    root.mkdir()
    saved: list[tuple[int, int]] = []
    with CrashFS(root) as disk:
        make_directory(root / "checkpoints")
        log = RowLog(root / "rows.jsonl")
        part = Counted(log)
        checkpointer = Checkpointer(root / "checkpoints", {"part": part}, 1, keep, Failures([0]), lambda _: None)
        for step in range(1, 6):
            for _ in range(2):
                log.append({"env_steps": step})
            part.values += 1
            checkpointer.save(Progress(step, 0, 9), Healthy())  # type: ignore[arg-type]
            saved.append((len(disk.events), step))
        log.close()
    chance = random.Random(keep)
    for _ in range(STATES * len(saved)):
        count = chance.randint(0, len(disk.events))
        with fresh_folder(tmp_path) as after:
            disk.after(count, chance, after)
            reap_unfinished(after / "checkpoints") if (after / "checkpoints").exists() else None
            log = RowLog(after / "rows.jsonl")
            part = Counted(log)
            again = Checkpointer(after / "checkpoints", {"part": part}, 1, keep, Failures([0]), lambda _: None)
            path, damaged = again.load_newest()
            log.close()
        done = max((step for events, step in saved if events <= count), default=0)
        assert damaged == []
        step = 0 if path is None else int(path.name)
        assert done <= step <= done + 1
        assert (part.values == step).all()
        assert part.log.next_seq == 2 * step


def test_f5_a_run_whose_power_failed_equals_the_undisturbed_one(tmp_path: Path) -> None:
    """The power fails in a whole run, at 20 random moments: the same command continues what is left and ends with the
    rows of the run that nothing happened to."""
    line = ["algorithm=value_iteration", "env=frozen_lake", *TINY, "total_env_steps=400"]
    line += ["checkpoint.interval=100"]
    root = tmp_path / "disk"
    root.mkdir()
    with CrashFS(root) as disk:
        expected = rows_of(run_in(root / "outputs", *line))
    assert sum(isinstance(event, Synced) for event in disk.events) > 50
    chance = random.Random(11)
    for _ in range(20):
        with fresh_folder(tmp_path) as after:
            disk.after(chance.randint(0, len(disk.events)), chance, after)
            folder = run_in(after / "outputs", *line)
            assert rows_of(folder) == expected
            assert read_status(folder)["state"] == "finished"


# --------------------------------------------------------------------------------------------------- the disk's double


def test_the_double_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """It is not a promise: a save without one of its syncs is seen to be torn."""
    for forgotten in range(5):
        root = tmp_path / f"disk{forgotten}"
        root.mkdir()
        save_tree(root / "a", tree(0))
        with CrashFS(root) as disk:
            save_tree(root / "a", tree(1))
        syncs = [position for position, event in enumerate(disk.events) if isinstance(event, Synced)]
        assert len(syncs) == 5  # three files, the new folder, the folder above it
        del disk.events[syncs[forgotten]]
        chance = random.Random(1)
        assert any(is_torn(disk, chance, tmp_path) for _ in range(STATES)), forgotten


def is_torn(disk: CrashFS, chance: random.Random, parent: Path) -> bool:
    with fresh_folder(parent) as after:
        disk.after(len(disk.events), chance, after)
        try:
            return version_of(after) != 1
        except AssertionError:
            return True


def test_the_double_sees_every_call(tmp_path: Path) -> None:
    """It is not a promise: where nothing was lost, what is left is what was made."""
    root = tmp_path / "disk"
    root.mkdir()
    with CrashFS(root) as disk:
        save_tree(root / "a", tree(1))
        save_tree(root / "a", tree(2))
        make_directory(root / "b" / "c")
        write_atomic(root / "b" / "c" / "d", "text")
        storage.remove(root / "b" / "c" / "d")
        write_atomic(root / "b" / "e", "text")
    assert {type(event) for event in disk.events} == {Named, Written, Synced}
    always = random.Random()
    always.random = lambda: 0.0  # type: ignore[method-assign]
    with fresh_folder(tmp_path) as after:
        disk.after(len(disk.events), always, after)
        made = [
            {path.relative_to(top): path.is_dir() or path.read_bytes() for path in top.rglob("*")}
            for top in (root, after)
        ]
    assert made[0] == made[1]
