"""Ctrl-C and death where environments are stepped in processes of their own, or hang."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlexp.experiment.status import read_status
from rlexp.storage.checkpoints import load_tree
from tests.faults import hanging
from tests.faults.ends import ENDLESS, assert_saved, checkpoints
from tests.faults.inspected import children_of, handles, ignores, lives, parent_of
from tests.faults.lab import ROOT, SMALL, Launched, processes_of_group, rows_below, run_below, wait_until

WORKERS = ["execution.vector=async", "execution.workers=2"]
OFFLINE = ["logger=wandb", "logger.wandb.mode=offline"]
ALONE = ["execution.vector=sync"]
LONG = [*SMALL, "total_env_steps=100_000_000", "checkpoint.interval=400", "evaluation.interval=50_000_000"]


def workers_of(run: Launched) -> list[int]:
    """The processes that step its environments: children of the fork server, which is one of the run."""
    return [worker for child in children_of(run.pid) for worker in children_of(child)]


def gone(pids: list[int]) -> bool:
    return not any(map(lives, pids))


# ---------------------------------------------------------------------------------------------------- F9: Ctrl-C


@pytest.mark.parametrize("vector", [ALONE, WORKERS], ids=["alone", "workers"])
def test_f9_one_ctrl_c_saves(vector: list[str], tmp_path: Path) -> None:
    """Ctrl-C in a terminal, which reaches workers, too: saved, exit 130, one line, no process is left."""
    outputs = tmp_path / "outputs"
    run = Launched(tmp_path / "said", *ENDLESS, *vector, f"outputs={outputs}")
    wait_until(lambda: rows_below(outputs) > 0, what="the first row")
    run.send(signal.SIGINT, to_group=True)
    assert run.end() == 130
    assert_saved(outputs, 130, run.errors())
    wait_until(lambda: processes_of_group(run.pid) == [], 2, "the end of every process")


Begin = Callable[..., Launched]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begins a run of the environment that hangs when it is told to, and waits for its first checkpoint."""

    def begun(*words: str) -> Launched:
        line = [*hanging.write_package(tmp_path / "user"), *LONG, *words, f"outputs={tmp_path / 'outputs'}"]
        run = Launched(tmp_path / "said", *line, cwd=tmp_path / "user")
        wait_until(lambda: bool(checkpoints(tmp_path / "outputs")), what="the first checkpoint")
        return run

    return begun


def hang(user: Path, place: str, how: str) -> int:
    """Tell the environments to hang; returns the first process that does."""
    hanging.tell(user, place, how)
    wait_until(lambda: bool(hanging.hung(user)), what="an environment that hangs")
    return hanging.hung(user)[0]


@pytest.mark.parametrize(
    ("vector", "how"),
    [
        (ALONE, None),
        (WORKERS, None),
        (ALONE, "sleep"),
        (WORKERS, "spin"),
        (["logger=wandb", "logger.wandb.mode=offline"], None),
    ],
    ids=["alone", "workers", "hangs", "a worker hangs", "wandb"],
)
def test_f9_a_second_ctrl_c_stops_at_once(vector: list[str], how: str | None, begin: Begin, tmp_path: Path) -> None:
    """Ctrl-C twice, 50 ms apart, also where an environment hangs or W&B is slow: gone in 2 s, exit 130, one line."""
    run = begin(*vector)
    if how is not None:
        hang(tmp_path / "user", "step", how)
    run.send(signal.SIGINT, to_group=True)
    time.sleep(0.05)
    began = time.monotonic()
    if run.running():
        run.send(signal.SIGINT, to_group=True)
    assert run.end() == 130
    assert time.monotonic() - began < 2
    wait_until(lambda: processes_of_group(run.pid) == [], 2, "the end of every process")
    (line,) = run.errors()
    assert "error[130]: stopped by SIGINT, " in line
    folder = run_below(tmp_path / "outputs")
    assert folder is not None
    assert read_status(folder)["exit_code"] == 130
    assert load_tree(checkpoints(tmp_path / "outputs")[-1])


# ------------------------------------------------------------------------------------- F10: death while one hangs


@pytest.mark.parametrize("how", ["sleep", "spin"])
@pytest.mark.parametrize("to_group", [False, True])
def test_f10_no_worker_outlives_a_killed_run(how: str, to_group: bool, begin: Begin, tmp_path: Path) -> None:
    """SIGKILL to a run one of whose environments hangs, in Python or in C: every process is gone in 5 s."""
    run = begin(*WORKERS)
    workers = workers_of(run)
    assert len(workers) == 2
    assert hang(tmp_path / "user", "step", how) in workers
    run.send(signal.SIGKILL, to_group=to_group)
    assert run.end() == -signal.SIGKILL
    wait_until(lambda: gone(workers) and processes_of_group(run.pid) == [], 5, "the end of every process")


def test_f10_a_preempted_run_whose_environment_hangs_leaves_nothing(begin: Begin, tmp_path: Path) -> None:
    """SIGTERM to a run one of whose environments hangs: exit 3 at a step's deadline, and every process is gone."""
    run = begin(*WORKERS, "execution.step_deadline=3")
    workers = workers_of(run)
    hang(tmp_path / "user", "step", "spin")
    run.send(signal.SIGTERM, to_group=True)
    began = time.monotonic()
    assert run.end() == 3
    assert time.monotonic() - began < 3 + 5
    assert "did not step its environments within 3 s" in run.errors()[-1]
    wait_until(lambda: gone(workers) and processes_of_group(run.pid) == [], 5, "the end of every process")


def test_f10_no_probe_outlives_a_killed_run(tmp_path: Path) -> None:
    """SIGKILL to a run while an unknown environment, asked for its spaces, hangs in C: the probe is gone in 5 s."""
    user = tmp_path / "user"
    words = [word for word in hanging.write_package(user) if word != "env=hanging"]
    hanging.tell(user, "make", "spin")
    run = Launched(tmp_path / "said", *words, "env.id=Hanging-v0", *LONG, f"outputs={tmp_path / 'outputs'}", cwd=user)
    wait_until(lambda: bool(hanging.hung(user)), what="a probe that hangs")
    (probe,) = hanging.hung(user)
    assert parent_of(probe) == run.pid
    run.send(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    try:
        wait_until(lambda: gone([probe]), 5, "the probe's end")
    finally:
        if lives(probe):
            os.kill(probe, signal.SIGKILL)


# ------------------------------------------------------------------------------------------- F11: inherited handlers


def test_f11_workers_inherit_no_handler_and_one_that_does_not_close_is_killed(begin: Begin, tmp_path: Path) -> None:
    """Workers have no handler of the run's and leave its signals to it; one that hangs as it closes is killed."""
    run = begin(*WORKERS)
    workers = workers_of(run)
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        assert handles(run.pid, number)
        assert not any(handles(worker, number) for worker in workers)
        assert all(ignores(worker, number) for worker in workers)
    assert {parent_of(worker) for worker in workers} != {run.pid}
    hanging.tell(tmp_path / "user", "close", "spin")
    run.send(signal.SIGTERM)
    began = time.monotonic()
    assert run.end() == 75
    assert time.monotonic() - began < 5
    assert len(hanging.hung(tmp_path / "user")) == 2
    assert_saved(tmp_path / "outputs", 75, run.errors())
    wait_until(lambda: gone(workers) and processes_of_group(run.pid) == [], 5, "the end of every process")


# ----------------------------------------------------------------------------------------------------- F14: forks

WITNESS = """
import os
import threading


def witness():
    tasks = len(os.listdir("/proc/self/task"))
    with open(os.environ["FORKS"], "a") as file:
        file.write(f"{os.getpid()} {threading.active_count()} {tasks}\\n")


os.register_at_fork(before=witness)
"""


@pytest.mark.parametrize("limited", [True, False])
def test_f14_only_processes_of_one_thread_fork(limited: bool, tmp_path: Path) -> None:
    """A run with workers and W&B: each process that forks has one thread; Python's own warning is an error."""
    (tmp_path / "witness").mkdir()
    (tmp_path / "witness" / "sitecustomize.py").write_text(WITNESS)
    environment = {
        "PYTHONPATH": f"{tmp_path / 'witness'}:{ROOT / 'src'}:{ROOT}",
        "FORKS": str(tmp_path / "forks"),
        "PYTHONWARNINGS": "error:This process:DeprecationWarning",
    }
    wrapped = () if limited else ("env", "-u", "OMP_NUM_THREADS", "-u", "MKL_NUM_THREADS", "-u", "OPENBLAS_NUM_THREADS")
    line = [*SMALL, *WORKERS, *OFFLINE, f"outputs={tmp_path / 'outputs'}"]
    run = Launched(tmp_path / "said", *line, environment=environment, wrapped=wrapped)
    assert run.end() == 0
    forks = [line.split() for line in (tmp_path / "forks").read_text().splitlines()]
    assert len(forks) >= 2
    assert [fork for fork in forks if fork[1:] != ["1", "1"]] == []
