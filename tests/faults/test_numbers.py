"""Numbers that are not finite, too large, or more than the machine holds; and runs that must not grow."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soak
import torch

import rlexp.experiment.run
from rlexp.errors import ResourceError
from rlexp.experiment import memory
from rlexp.experiment.jobs import checked_jobs
from rlexp.functional.schedules import linear
from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.storage.rows import read_rows
from rlexp.types import Progress
from tests.experiment.support import Forked, run_in
from tests.faults.lab import SMALL, run_below, under_load, wait_until

NOT_INJECTED = {"F47": "a graphics card that another process holds, or that fails in mid-run: no card in the machine"}


def ended(tmp_path: Path, *words: str, prepare: Any = None) -> tuple[int, str]:
    """Exit code and last line of errors of a run."""
    run = Forked(tmp_path / "said", *words, f"outputs={tmp_path / 'outputs'}", prepare=prepare)
    code = run.wait()
    return code, (run.stderr().splitlines() or [""])[-1]


def all_finite(node: Any) -> bool:
    if isinstance(node, (dict, list)):
        return all(map(all_finite, node.values() if isinstance(node, dict) else node))
    return not hasattr(node, "dtype") or bool(torch.as_tensor(node).isfinite().all())


ONE_UPDATE = ["algorithm.num_epochs=1", "algorithm.num_minibatches=1"]
RISING = "{_target_: rlexp.functional.schedules.linear, start: 1e-3, end: 1e20, fraction: 1.0}"


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.learning_rate=1e25"],
        [
            "optimizer.learning_rate=1e39",
            "evaluation.interval=40",
            *ONE_UPDATE,
        ],  # evaluated before a row has a bad number
        [f"optimizer.learning_rate={RISING}"],
    ],
)
def test_f45_the_learning_diverges(words: list[str], tmp_path: Path) -> None:
    """Learning that diverges ends with code 4; no checkpoint and no best weights hold a number that is not finite."""
    line = [*SMALL, "optimizer.max_grad_norm=null", "checkpoint.interval=40", *words]
    code, last = ended(tmp_path, *line)
    assert code == 4
    assert last.startswith("rlexp: error[4]: ")
    assert "lower optimizer.learning_rate" in last
    folder = run_below(tmp_path / "outputs")
    assert folder is not None
    for kept in [*(folder / "checkpoints").glob("[0-9]*"), *(folder / "weights").iterdir()]:
        assert all_finite(load_tree(kept)), kept
    assert not (folder / "weights" / "final").exists()


HUGE = ["algorithm=dqn", *SMALL[3:], "experience.learning_starts=100", "total_env_steps=1000000000000"]


def test_f46_a_buffer_larger_than_the_memory(tmp_path: Path) -> None:
    """A buffer that the machine cannot hold, though NumPy would promise it, is refused with code 6 before any folder or
    environment is made, with the largest that fits; that one is taken."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    code, last = ended(tmp_path, *HUGE, f"experience.capacity={available // 50}")
    assert code == 6
    assert "rlexp: error[6]: experience.capacity=" in last
    assert not (tmp_path / "outputs").exists()
    fits = int(last.rpartition("the largest that fits is ")[2])
    checked_jobs([*HUGE, f"experience.capacity={int(0.9 * fits)}"], multirun=False)
    with pytest.raises(ResourceError):
        checked_jobs([*HUGE, f"experience.capacity={int(1.5 * fits)}"], multirun=False)


def test_f46_a_buffer_that_a_short_run_does_not_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is not refused for places of its buffer that it will not reach, and a finished run is shown whatever the
    memory."""
    line = [*HUGE, "total_env_steps=800", "experience.capacity=1_000_000", f"outputs={tmp_path}"]
    monkeypatch.setattr(memory, "_of_machine", lambda: 1e6)
    checked_jobs(line, multirun=False)
    monkeypatch.setattr(memory, "_of_machine", lambda: 1e4)
    with pytest.raises(ResourceError, match="the largest that fits is "):
        checked_jobs(line, multirun=False)
    monkeypatch.undo()
    run_in(tmp_path, *line[:-1])
    monkeypatch.setattr(memory, "_of_machine", lambda: 1e4)
    checked_jobs(line, multirun=False)


def test_f46_a_buffer_larger_than_the_process_may_be(tmp_path: Path) -> None:
    """A buffer beyond the limit on the process' memory is refused with code 6 before any folder is made."""

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))

    code, last = ended(tmp_path, *HUGE, "experience.capacity=30_000_000", prepare=limit)
    assert code == 6
    assert "experience.capacity=30000000: needs 1.7 GiB of memory, " in last
    assert not (tmp_path / "outputs").exists()


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """A control group with so many bytes of memory; skips where none can be made."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    first, file = Path("/sys/fs/cgroup"), "memory.max"
    if "memory" in own:
        first, file = first / "memory", "memory.limit_in_bytes"
    folder = first / own.get("memory", own.get("", "/")).strip("/") / f"rlexp_{os.getpid()}"
    try:
        folder.mkdir()
        (folder / file).write_text(str(limit))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder
    finally:
        wait_until(lambda: (folder / "cgroup.procs").read_text() == "", what="the end of the group's processes")
        folder.rmdir()


def test_f46_a_buffer_larger_than_the_control_group(tmp_path: Path) -> None:
    """A buffer beyond the limit of the control group (a container, a scheduler's job) is refused with code 6."""
    with control_group(2**30) as group:
        line = [*HUGE, "experience.capacity=30_000_000"]
        code, last = ended(tmp_path, *line, prepare=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
    assert code == 6
    assert "experience.capacity=30000000: needs 1.7 GiB of memory, " in last
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_f47_a_device_that_is_not_there(device: str, tmp_path: Path) -> None:
    """A graphics card that is not there ends the command with code 6 in three seconds; nothing goes on on the CPU."""
    began = time.monotonic()
    code, last = ended(tmp_path, *SMALL, f"device={device}", prepare=lambda: os.environ.update(CUDA_VISIBLE_DEVICES=""))
    assert code == 6
    assert time.monotonic() - began < under_load(3.0)
    assert f"rlexp: error[6]: device={device}: is not available (" in last
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("reached", [2**24, 2**31, 10**15 - 80, 2**53])
def test_f48_huge_counts(reached: int, tmp_path: Path) -> None:
    """Beyond 2^24, 2^31, 10^15 and 2^53 environment steps a continued run counts each step, schedules go on, and its
    newest checkpoint is the one that is continued."""
    total, outputs = 2**54, tmp_path / "outputs"
    falling = "{_target_: rlexp.functional.schedules.linear, start: 1e-3, end: 0.0, fraction: 1.0}"
    line = [*SMALL, "evaluation.interval=1000000000", f"total_env_steps={total}", "checkpoint.interval=40"]
    line += [f"optimizer.learning_rate={falling}", f"outputs={outputs}"]

    def live(env_steps: int) -> Path:
        run = Forked(tmp_path / "said", *line, prepare=expect_nothing)
        wait_until(lambda: reached_by(outputs) > env_steps, what="more rows")
        os.kill(run.pid, signal.SIGTERM)
        assert run.wait() == 75
        folder = run_below(outputs)
        assert folder is not None
        return folder

    folder = live(0)
    kept = len(read_rows(folder / "rows.jsonl"))
    newest = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    tree = load_tree(newest)
    assert tree["rows"]["rows"] == [kept]
    tree["experience"]["collector"]["env_steps"] = tree["state"]["updates"] = reached
    save_tree(folder / "checkpoints" / f"{reached:015d}", tree)
    live(reached + 120)
    last = reached_by(outputs)
    assert {int(path.name) for path in (folder / "checkpoints").iterdir()} == {last - 40, last}
    live(last + 80)
    after = [row for row in read_rows(folder / "rows.jsonl")[kept:] if row["kind"] == "train"]
    assert [row["env_steps"] for row in after] == [reached + 40 * n for n in range(1, len(after) + 1)]
    for row in after:
        before = Progress(row["env_steps"], 0, total)
        assert row["optimizer/learning_rate"] == pytest.approx(
            linear(before, start=1e-3, end=0.0, fraction=1.0), rel=1e-9
        )
    assert read_json(folder / "sessions.json")["exact"] is True


def expect_nothing() -> None:
    """In a process of its own: a run that is never to end is not refused for the rows that it would write."""
    rlexp.experiment.run.check_space = lambda expected, directory: None


def reached_by(outputs: Path) -> int:
    folder = run_below(outputs)
    rows = read_rows(folder / "rows.jsonl") if folder else []
    return int(rows[-1]["env_steps"]) if rows else -1


QUICK = {
    "ppo": ["algorithm=ppo", "experience.rollout_length=250", "algorithm.num_epochs=1", "algorithm.num_minibatches=1"],
    "dqn": ["algorithm=dqn", "experience.collection_steps=200", "experience.num_envs=8", "experience.batch_size=32"],
}


@pytest.mark.parametrize("name", QUICK)
def test_f49_long_runs_do_not_grow(name: str, tmp_path: Path) -> None:
    """A run of 300,000 steps has, after its warm-up, as many open files and threads throughout, and its memory grows
    by less than 1 MiB in 100,000 steps."""
    found = soak.verdict(soak.soak(QUICK[name], 300_000, tmp_path))
    assert found["samples"] > 50
    assert found["memory_growth_mib_per_100000_steps"] < soak.GROWTH, found
    for what in ("files", "threads"):
        first, last = found[f"{what}_first_and_last_fifth"]
        assert first == last, found
