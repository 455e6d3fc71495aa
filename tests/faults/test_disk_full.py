"""Disks that are full, too small, read-only, or somebody else's."""

import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlexp.experiment.status import read_status
from rlexp.storage.checkpoints import load_tree
from rlexp.storage.rows import read_rows
from tests.experiment.support import TINY, Forked, rows_of, run_in
from tests.faults.lab import run_below, wait_until
from tests.faults.small_disk import SmallDisk

ELSEWHERE: dict[str, list[str]] = {}
NOT_INJECTED: dict[str, str] = {}

PPO = ["algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=20", "algorithm.num_epochs=1"]
LONG = [*PPO, *TINY, "total_env_steps=1_000_000", "logger.interval=40", "checkpoint.interval=1_000_000"]
LONG = [word for word in LONG if not word.startswith("display")]  # said to a file, in plain lines
LARGE = [*PPO, "network.hidden=[128,128]", "logger=local", "evaluation=none", "checkpoint.keep=1"]
LARGE += ["logger.interval=200", "checkpoint.interval=1000"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], SmallDisk]]:
    """Makes a small disk by its options."""
    made: list[SmallDisk] = []

    def make(options: str) -> SmallDisk:
        made.append(SmallDisk(tmp_path / "disk", options))
        return made[0]

    yield make
    for each in made:
        each.remove()


def newest(outputs: Path) -> str | None:
    """The name of the newest checkpoint of the one run there."""
    names = [path.name for path in outputs.glob("*/*/s0/checkpoints/[0-9]*")]
    return max(names, default=None)


def rows_in(outputs: Path) -> int:
    folder = run_below(outputs)
    return 0 if folder is None else len(read_rows(folder / "rows.jsonl"))


def last_line(run: Forked) -> str:
    line = run.stderr().splitlines()[-1]
    assert line.startswith("rlexp: error[")
    assert "Traceback" not in run.stderr()
    return line


# ------------------------------------------------------------------------------------------------------ rows and saves


def test_f15_the_disk_is_full_while_rows_come(disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """The disk of a run fills up while it logs: it ends with exit code 5 and one line with the file and the bytes that
    are free; every row before is readable, and once there is room the same command goes on to the rows of the run that
    nothing happened to."""
    small = disk("size=4M")
    words = [word for word in LONG if not word.startswith(("total", "checkpoint"))] + ["total_env_steps=8_000"]
    run = Forked(tmp_path / "said", *words, f"outputs={small.path}", prepare=small.enter)
    wait_until(lambda: rows_in(small.seen) > 3, what="the third row")
    small.fill()
    assert run.wait() == 5
    line = last_line(run)
    assert "No space left on device" in line
    assert " bytes free" in line
    rows = read_rows(run_below(small.seen) / "rows.jsonl")
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 3
    small.make_room()
    assert Forked(tmp_path / "again", *words, f"outputs={small.path}", prepare=small.enter).wait() == 0
    expected = run_in(tmp_path / "undisturbed", *words, "display=none")
    assert rows_of(run_below(small.seen)) == rows_of(expected)


def test_f16_the_disk_is_full_in_a_save(disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """The disk has room for half a checkpoint while a run saves: it says so in one line, keeps the checkpoint before,
    leaves nothing of the new one, and goes on; when there is room at the next save it ends as if nothing had been."""
    small = disk("size=4M")
    words = [*LARGE, "total_env_steps=6000", f"outputs={small.path}"]
    run = Forked(tmp_path / "said", *words, prepare=small.enter)
    wait_until(lambda: newest(small.seen) is not None, what="the first checkpoint")
    small.fill(left=150_000)
    kept = newest(small.seen)
    wait_until(lambda: "not saved at env_steps=" in run.stderr(), what="a save that fails")
    small.make_room()
    assert run.wait() == 0, run.stderr()
    failed = [line for line in run.stderr().splitlines() if "not saved" in line]
    assert len(failed) == 1
    assert "No space left on device" in failed[0]
    assert "the run goes on" in failed[0]
    assert newest(small.seen) != kept
    folder = run_below(small.seen)
    assert list(folder.rglob(".saving-*")) == []
    expected = run_in(tmp_path / "undisturbed", *words[:-1], "display=none")
    assert rows_of(folder) == rows_of(expected)


def test_f16_the_disk_stays_full(disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """Where the save after that fails, too, the run ends with exit code 5; the last checkpoint that was saved loads."""
    small = disk("size=4M")
    run = Forked(tmp_path / "said", *LARGE, "total_env_steps=100_000", f"outputs={small.path}", prepare=small.enter)
    wait_until(lambda: newest(small.seen) is not None, what="the first checkpoint")
    small.fill(left=150_000)
    assert run.wait() == 5
    assert "No space left on device" in last_line(run)
    assert run.stderr().count("not saved at env_steps=") == 1
    folder = run_below(small.seen)
    assert load_tree(folder / "checkpoints" / newest(small.seen))["state"]["updates"] > 0
    assert list(folder.rglob(".saving-*")) == []
    assert (read_status(folder)["state"], read_status(folder)["exit_code"]) == ("failed", 5)


def test_f17_what_will_not_fit_is_refused_at_the_start(disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """A run whose full replay buffer would make checkpoints of ten times the disk ends with exit code 6 before a step
    is done, with what it needs, what is free, and what to lower."""
    small = disk("size=4M")
    words = ["algorithm=dqn", "experience.capacity=500_000", "total_env_steps=1_000_000", "logger=local"]
    run = Forked(tmp_path / "said", *words, f"outputs={small.path}", prepare=small.enter)
    assert run.wait() == 6
    line = last_line(run)
    assert "are free; lower experience.capacity" in line
    assert rows_in(small.seen) == 0
    assert newest(small.seen) is None


# ------------------------------------------------------------------------------------------------------- size of files


def limit_of_files(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_f18_a_limit_on_files_while_rows_come(tmp_path: Path) -> None:
    """A limit on the size of files is reached while rows are logged: exit code 5, one line, and the rows before."""
    run = Forked(tmp_path / "said", *LONG, f"outputs={tmp_path / 'outputs'}", prepare=limit_of_files(200_000))
    assert run.wait() == 5
    assert "rows.jsonl: File too large" in last_line(run)
    rows = read_rows(run_below(tmp_path / "outputs") / "rows.jsonl")
    assert len(rows) > 100
    assert [row["seq"] for row in rows] == list(range(len(rows)))


def test_f18_a_limit_on_files_in_a_save(tmp_path: Path) -> None:
    """A limit on the size of files that comes while a run saves: one failed save is said, the second ends it with exit
    code 5, and the last checkpoint that was saved loads."""
    outputs = tmp_path / "outputs"
    run = Forked(tmp_path / "said", *LARGE, "total_env_steps=100_000", f"outputs={outputs}")
    wait_until(lambda: newest(outputs) is not None, what="the first checkpoint")
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    assert run.wait() == 5
    assert "File too large" in last_line(run)
    assert run.stderr().count("not saved at env_steps=") == 1
    assert load_tree(run_below(outputs) / "checkpoints" / newest(outputs))["state"]["updates"] > 0


def test_f18_a_limit_that_no_checkpoint_fits_is_refused_at_the_start(tmp_path: Path) -> None:
    """Where a checkpoint will be larger than a file may be, the run ends with exit code 6 before a step is done."""
    outputs = tmp_path / "outputs"
    words = [*LARGE, "total_env_steps=1000", f"outputs={outputs}"]
    run = Forked(tmp_path / "said", *words, prepare=limit_of_files(200_000))
    assert run.wait() == 6
    assert "(ulimit -f)" in last_line(run)
    assert rows_in(outputs) == 0


# ----------------------------------------------------------------------------------------------- where nobody may write


def made_no_environment() -> None:
    """In the process of a run: whoever makes an environment ends it with status 99."""
    import gymnasium

    def end(*arguments: object, **named: object) -> None:
        os._exit(99)

    gymnasium.make = end  # type: ignore[assignment]


SLOW = [*PPO, *TINY, "execution.vector=sync"]


def test_f19_a_read_only_disk(disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """An outputs folder on a disk that is mounted read-only: exit code 5 and one line before an environment is made."""
    small = disk("size=1M,ro")

    def prepare() -> None:
        small.enter()
        made_no_environment()

    run = Forked(tmp_path / "said", *SLOW, f"outputs={small.path}/outputs", prepare=prepare)
    assert run.wait() == 5
    assert "Read-only file system" in last_line(run)
    assert len(run.stderr().splitlines()) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o000])
def test_f19_somebody_elses_folder(mode: int, tmp_path: Path) -> None:
    """An outputs folder in which the user may not write, or not even look: exit code 5 and one line before an
    environment is made."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(mode)

    def prepare() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        made_no_environment()

    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
    run = Forked(tmp_path / "said", *SLOW, f"outputs={theirs}/outputs", prepare=prepare)
    assert run.wait() == 5
    assert "Permission denied" in last_line(run)
    assert len(run.stderr().splitlines()) == 1
    theirs.chmod(0o700)
    assert list(theirs.iterdir()) == []


def test_f19_a_missing_folder_is_made(tmp_path: Path) -> None:
    """An outputs folder that is not there yet, nor those above it, is made."""
    outputs = tmp_path / "a" / "b" / "outputs"
    assert Forked(tmp_path / "said", *PPO, *TINY, f"outputs={outputs}").wait() == 0
    shutil.rmtree(outputs)


@pytest.mark.parametrize("inodes", [3, 6, 10, 14, 18, 22])
def test_f26_a_disk_without_inodes(inodes: int, disk: Callable[[str], SmallDisk], tmp_path: Path) -> None:
    """A disk that has bytes and no more files to give: exit code 5 and one line, wherever in a run it happens."""
    small = disk(f"size=40M,nr_inodes={inodes}")
    words = [word for word in SLOW if not word.startswith("display")]
    run = Forked(tmp_path / "said", *words, f"outputs={small.path}/outputs", prepare=small.enter)
    assert run.wait() == 5
    assert "No space left on device" in last_line(run)
