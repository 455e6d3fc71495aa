"""System calls that fail, handles that run out, names that are odd, and W&B's own files as they grow."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlexp.experiment.checkpoint import Checkpointer
from rlexp.experiment.forecast import MIRRORED
from rlexp.experiment.members import Failures
from rlexp.experiment.status import read_status
from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree
from rlexp.storage.rows import RowLog, read_rows
from rlexp.types import Progress
from tests.experiment.support import TINY, Forked, rows_of, run_in
from tests.faults.crash_fs import REAL_FSYNC
from tests.faults.lab import Launched, wait_until

ELSEWHERE = {
    "F25": ["tests/test_storage.py::test_what_is_written_piece_by_piece_is_seen_whole_or_not_at_all"],
}
NOT_INJECTED = {
    "F27": "a command that removes what was sent: `wandb clean` does that, and knows what was",
}

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
QUICK = ["algorithm=value_iteration", "env=frozen_lake", *TINY, "total_env_steps=300", "checkpoint.interval=100"]


class Traced:
    """An action in a forked process whose n-th fsync gives EIO, injected by strace. n = 0: none, they are counted."""

    def __init__(self, folder: Path, action: Callable[[], None], n: int = 0) -> None:
        self._log = folder / "strace.log"
        self._log.unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                os.fsync = REAL_FSYNC
                os.kill(os.getpid(), signal.SIGSTOP)
                action()
                code = 0
            finally:
                os._exit(code)
        os.waitpid(self.pid, os.WUNTRACED)
        inject = ["-e", f"inject=fsync:error=EIO:when={n}"] if n else []
        self._tracer = subprocess.Popen(
            ["strace", "-p", str(self.pid), "-o", str(self._log), "-e", "trace=fsync", *inject],
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._is_traced, what="strace")
        os.kill(self.pid, signal.SIGCONT)

    def _is_traced(self) -> bool:
        if self._tracer.poll() is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            pytest.skip("strace may trace no process here")
        status = Path(f"/proc/{self.pid}/status").read_text()
        return "TracerPid:\t0" not in status

    def end(self) -> int:
        """Its exit status."""
        _, status = os.waitpid(self.pid, 0)
        self._tracer.wait()
        return os.waitstatus_to_exitcode(status)

    def calls(self) -> int:
        return sum("fsync(" in line for line in self._log.read_text().splitlines())

    def injected(self) -> bool:
        return "(INJECTED)" in self._log.read_text()


class Part:
    """Of a checkpoint."""

    value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "x": np.full(50, self.value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Healthy:
    """A train state whose numbers are finite."""

    frozen = (False,)

    def finite(self) -> list[bool]:
        return [True]


def saves(folder: Path) -> None:
    """Two saves, one of which is kept; the announced ones are named in a file."""
    said: list[str] = []
    part = Part()
    checkpointer = Checkpointer(folder, {"part": part}, 1, 1, Failures([0]), said.append)
    for step in (1, 2, 3):
        part.value = step
        checkpointer(Progress(step, 0, 9), [], Healthy())
        if not said:
            (folder / "announced").write_text(str(step))


@needs_strace
def test_f20_a_sync_that_fails_in_a_save(tmp_path: Path) -> None:
    """Each fsync of three saves gives an input/output error, one after the other: the save is said to have failed, and
    the newest checkpoint that loads is the one before or the next, never nothing and never a part."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    counted = Traced(tmp_path, lambda: saves(folder))
    assert counted.end() == 0
    count = counted.calls()
    assert count >= 15
    for n in range(1, count + 1):
        shutil.rmtree(folder)
        folder.mkdir()
        traced = Traced(tmp_path, lambda: saves(folder), n)
        assert traced.end() == 0, n
        assert traced.injected(), n
        failed = (n - 1) * 3 // count + 1
        assert (folder / "announced").exists() == (failed > 1), n
        if failed > 1:
            assert int((folder / "announced").read_text()) == failed - 1
        found = [load_tree(path)["part"]["value"] for path in folder.glob("[0-9]*")]
        assert max(found) == (2 if failed == 3 and 2 in found and 3 not in found else 3)
        assert list(folder.glob(".saving-*")) == []


@needs_strace
def test_f20_a_sync_that_fails_in_a_run(tmp_path: Path) -> None:
    """Every fifth fsync of a whole run gives an input/output error: the run ends with exit code 5 or, where it was one
    save, goes on; the same command then ends with the rows of the run that nothing happened to."""
    expected = rows_of(run_in(tmp_path / "undisturbed", *QUICK))

    def command(outputs: Path) -> int:
        return Forked(tmp_path / "said", *QUICK, f"outputs={outputs}").wait()

    def action(outputs: Path) -> Callable[[], None]:
        return lambda: run_here(outputs)

    counted = Traced(tmp_path, action(tmp_path / "counted"))
    assert counted.end() == 0
    count, ends = counted.calls(), set()
    assert count > 50
    for n in range(2, count + 1, 5):
        outputs = tmp_path / f"run{n}"
        traced = Traced(tmp_path, action(outputs), n)
        ends.add(status := traced.end())
        assert status in (0, 5), n
        assert traced.injected()
        assert command(outputs) == 0, n
        (folder,) = outputs.glob("*/*/s0")
        assert rows_of(folder) == expected, n
        assert read_status(folder)["state"] == "finished"
    assert ends == {0, 5}


def run_here(outputs: Path) -> None:
    """The run in this process, which then ends with the command's status."""
    from rlexp.cli.common import guarded
    from rlexp.cli.main import command

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os._exit(guarded(lambda: command([*QUICK, f"outputs={outputs}"])))


# ------------------------------------------------------------------------------------------------------------- handles


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 6, 8, 12, 64])
def test_f26_file_handles_run_out(left: int, tmp_path: Path) -> None:
    """A run may open only so many more files: it ends with exit code 5 or 6 and one line, or does its work."""

    def prepare() -> None:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left, highest + left))

    run = Forked(tmp_path / "said", *QUICK, f"outputs={tmp_path / 'outputs'}", prepare=prepare)
    status = run.wait()
    assert status in ((0,) if left == 64 else (0, 2, 5, 6)), run.stderr()
    assert "Traceback" not in run.stderr()
    assert len(run.stderr().splitlines()) == (status != 0)


@pytest.mark.parametrize("limit", [24, 64])
def test_f26_few_file_handles_from_the_start(limit: int, tmp_path: Path) -> None:
    """A process that may open 64 files trains, evaluates and mirrors to W&B; one that may open 24 does, too, or ends
    with exit code 5 or 6 and one line."""
    words = [word for word in QUICK if not word.startswith("logger=")]
    run = Launched(
        tmp_path / "said",
        *words,
        "logger.wandb.mode=offline",
        f"outputs={tmp_path / 'outputs'}",
        prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    status = run.end()
    assert status in ((0,) if limit == 64 else (0, 5, 6)), run.errors()
    assert len(run.errors()) <= 1


# --------------------------------------------------------------------------------------------------------------- names

ODD = ["ünï 中文", "with spaces", "new\nline", "-leading", "a=b,c", "x" * 255, "[brackets]{}", "quote'\"s", "per%cent$"]


@pytest.mark.parametrize("name", ODD)
def test_f25_outputs_with_an_odd_name(name: str, tmp_path: Path) -> None:
    """Runs lie and are continued in a folder whose name has letters of any script, spaces, a new line, a leading dash,
    255 bytes, or what a shell or Hydra would read otherwise; or the command ends with exit code 2 and one line."""
    outputs = tmp_path / name
    quoted = str(outputs).replace("\\", "\\\\").replace("'", "\\'")
    for expected in ("finished", "finished already"):
        run = Forked(tmp_path / "said", *QUICK, f"outputs='{quoted}'")
        assert run.wait() == 0, run.stderr()
        (folder,) = outputs.glob("*/*/s0")
        assert read_status(folder)["state"] == "finished", expected
    assert {path.name for path in tmp_path.iterdir()} == {"said", name}


def test_f25_a_path_that_is_too_long(tmp_path: Path) -> None:
    """An outputs folder whose path is longer than the system takes: exit code 5 and one line."""
    outputs = tmp_path.joinpath(*["x" * 200] * 25)
    run = Forked(tmp_path / "said", *QUICK, f"outputs={outputs}")
    assert run.wait() == 5
    assert "File name too long" in run.stderr()
    assert len(run.stderr().splitlines()) == 1


# ----------------------------------------------------------------------------------------------------------------- W&B


@pytest.fixture
def no_account(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "none"), "WANDB_MODE": "offline"}


def test_f27_what_wandb_keeps_of_a_row(no_account: dict[str, str], tmp_path: Path) -> None:
    """Offline, W&B keeps fewer bytes of a row than the forecast of a run allows for, measured with 1,000 rows; a second
    copy takes the place of the first."""
    words = ["algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=20", *TINY]
    run = run_in(tmp_path / "outputs", *words)
    row = {key: value for key, value in read_rows(run / "rows.jsonl")[-4].items() if key != "seq"}
    assert len(row) > 12
    log = RowLog(run / "rows.jsonl")
    log.cut(0)
    for k in range(1000):
        log.append({**row, "env_steps": k, "value/mean": k / 7})
    log.close()
    sizes = []
    for _ in range(2):
        sync = Launched(
            tmp_path / "said",
            str(run),
            "--mode",
            "offline",
            command=[sys.executable, "-c", "from rlexp.cli.sync import main; main()"],
            environment=no_account,
        )
        assert sync.end() == 0, sync.errors()
        kept = [path for path in (tmp_path / "outputs" / "wandb").rglob("*") if path.is_file()]
        sizes.append(sum(path.stat().st_size for path in kept))
    assert read_json(run / "wandb.json")["rows"] == 1000
    assert MIRRORED / 2 < sizes[0] / 1000 < MIRRORED, sizes
    assert abs(sizes[1] - sizes[0]) < 0.1 * sizes[0]
