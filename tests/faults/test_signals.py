"""Signals of a user and of a scheduler, at every moment of a run's life."""

import itertools
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from kill_storm import difference, remains

from rlexp import storage
from rlexp.experiment.evaluator import Evaluator
from rlexp.storage import read_json
from rlexp.storage.rows import read_rows
from tests.experiment.support import Forked
from tests.faults.ends import ENDLESS, assert_saved, checkpoints
from tests.faults.inspected import children_of, command_of, handles, ignores, lives
from tests.faults.lab import SMALL, Launched, rows_below, run_below, wait_until

NOT_INJECTED = {
    "F7": "a grace period is the scheduler's and unknown to a run, so none is compared with what a save takes",
}
SHORT = [*SMALL, "algorithm.num_epochs=1", "algorithm.num_minibatches=1", "total_env_steps=4000"]
SHORT += ["logger.interval=200", "checkpoint.interval=1000", "evaluation.interval=2000"]


def rows_of(outputs: Path) -> list[dict[str, Any]]:
    folder = run_below(outputs)
    assert folder is not None
    return read_rows(folder / "rows.jsonl")


# ------------------------------------------------------------------------------------------------------- F6: preemption


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert Forked(outputs / "said", *SHORT, f"outputs={outputs}").wait() == 0
    return outputs


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM, with a `scontrol` that writes down how it is called; returns the file for that."""
    called = tmp_path / "called"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return called


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_f6_preempted_at_random_moments_until_done_equals_the_undisturbed_run(
    number: signal.Signals, undisturbed: Path, scontrol: Path, tmp_path: Path
) -> None:
    """A job under SLURM is sent SIGCONT and SIGTERM (or SIGUSR1) at random moments: it saves, exits 75, and ends equal.

    Whoever starts it sees exit code 75, "start me again"; a run does not requeue itself.
    """
    chance, outputs, ends = random.Random(number), tmp_path / "outputs", []
    while (ends or [75])[-1] == 75 and len(ends) < 30:
        said = tmp_path / f"said{len(ends)}"
        run = Forked(said, *SHORT, f"outputs={outputs}", prepare=os.setsid)
        wait_until(lambda run=run: handles(run.pid), what="a handler")
        if len(ends) < 4:  # at most sixteen of the run's twenty rows
            wanted = rows_below(outputs) + chance.randint(1, 4)
            wait_until(lambda wanted=wanted: rows_below(outputs) >= wanted, what="rows")
            time.sleep(chance.uniform(0, 0.02))
            for each in (signal.SIGCONT, number):
                os.killpg(run.pid, each)
        ends.append(run.wait())
        if ends[-1] == 75:
            (line,) = said.read_text().splitlines()
            assert f"stopped by {number.name}" in line
    assert ends[-1] == 0
    assert 75 in ends
    assert set(ends) == {0, 75}
    assert difference(remains(SHORT, undisturbed), remains(SHORT, outputs)) is None
    assert not scontrol.exists()


# --------------------------------------------------------------------------------------------- F7: at a wrong moment


def kill_self_at(operation: str, pattern: str, nth: int = 1) -> Callable[[], None]:
    """To be called in a run's process: it sends itself SIGTERM before the n-th operation on a path like the pattern."""

    def prepare() -> None:
        count = itertools.count(1)

        def hook(name: str, path: Path) -> None:
            if name == operation and re.search(pattern, str(path)) and next(count) == nth:
                os.kill(os.getpid(), signal.SIGTERM)

        storage.before_operation = hook

    return prepare


@pytest.mark.parametrize(
    ("operation", "pattern"),
    [
        ("write", r"checkpoints/.*tree\.json"),
        ("fsync", r"checkpoints/.*\.safetensors"),
        ("fsync", r"checkpoints/\.saving-[^/]*$"),
        ("rename", r"checkpoints/0"),
    ],
)
def test_f7_a_signal_inside_a_save_is_served_after_it(operation: str, pattern: str, tmp_path: Path) -> None:
    """SIGTERM in the middle of a checkpoint: the save is completed, nothing half is left, exit 75."""
    outputs = tmp_path / "outputs"
    prepare = kill_self_at(operation, pattern)
    run = Forked(tmp_path / "said", *SMALL, f"outputs={outputs}", prepare=prepare)
    assert run.wait() == 75
    assert_saved(outputs, 75, run.stderr().splitlines())
    assert [int(path.name) for path in checkpoints(outputs)] == [320]


def test_f7_a_signal_inside_the_last_save_stops_before_the_evaluation(tmp_path: Path) -> None:
    """SIGTERM while the last checkpoint is saved: exit 75 at once, not after the evaluation of 200 episodes."""
    outputs = tmp_path / "outputs"
    prepare = kill_self_at("write", r"checkpoints/.*manifest\.json", 3)
    run = Forked(tmp_path / "said", *SMALL, f"outputs={outputs}", prepare=prepare)
    assert run.wait() == 75
    assert int(checkpoints(outputs)[-1].name) == 800
    assert "stopped by SIGTERM, the last checkpoint stands" in run.stderr()
    assert not any(row["kind"] == "final" for row in rows_of(outputs))
    assert Forked(tmp_path / "said", *SMALL, f"outputs={outputs}").wait() == 0


def signalled(cls: type, method: str, when: Callable[..., bool]) -> Callable[[], None]:
    """To be called in a run's process: it sends itself SIGTERM as it calls a method, once, if `when` says so."""

    def prepare() -> None:
        original, sent = getattr(cls, method), []

        def first_a_signal(*given: Any, **named: Any) -> Any:
            if not sent and when(*given, **named):
                sent.append(method)
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*given, **named)

        setattr(cls, method, first_a_signal)

    return prepare


def evaluates(episodes: int) -> Callable[..., bool]:
    return lambda self, progress, asked, *rest, **named: asked == episodes


@pytest.mark.parametrize(
    "prepare",
    [
        signalled(Evaluator, "_run", evaluates(2)),
        signalled(CartPoleEnv, "reset", lambda *given, **named: True),
        signalled(CartPoleEnv, "step", lambda *given, **named: True),
    ],
    ids=["evaluation", "reset", "step"],
)
def test_f7_a_signal_inside_an_evaluation_a_reset_or_a_step(prepare: Callable[[], None], tmp_path: Path) -> None:
    """SIGTERM in a short evaluation, or while an environment resets or steps: the turn is completed, saved, exit 75."""
    outputs = tmp_path / "outputs"
    line = [*SMALL, "execution.vector=sync", f"outputs={outputs}"]
    run = Forked(tmp_path / "said", *line, prepare=prepare)
    assert run.wait() == 75
    assert_saved(outputs, 75, run.stderr().splitlines())
    assert Forked(tmp_path / "said", *line).wait() == 0


def test_f7_a_signal_inside_the_last_evaluation_stops_it(tmp_path: Path) -> None:
    """SIGTERM in the long evaluation at the end, when all is saved: exit 75 at once; the same command measures."""
    outputs = tmp_path / "outputs"
    run = Forked(tmp_path / "said", *SMALL, f"outputs={outputs}", prepare=signalled(Evaluator, "_run", evaluates(3)))
    assert run.wait() == 75
    assert "the last checkpoint stands; the same command continues" in run.stderr()
    assert not any(row["kind"] == "final" for row in rows_of(outputs))
    assert Forked(tmp_path / "said", *SMALL, f"outputs={outputs}").wait() == 0
    assert [row["kind"] for row in rows_of(outputs)][-1] == "final"


def test_f7_a_signal_before_the_run_begins(tmp_path: Path) -> None:
    """SIGTERM while torch is imported: exit 75 and one line, nothing is made; it can be started again."""
    run = Launched(tmp_path / "said", *SMALL, f"outputs={tmp_path / 'outputs'}")
    wait_until(lambda: "libtorch" in Path(f"/proc/{run.pid}/maps").read_text(), what="torch")
    run.send(signal.SIGTERM)
    assert run.end(20) == 75
    assert run.errors() == ["rlexp: error[75]: stopped by SIGTERM before the run began; the same command begins it"]
    assert not (tmp_path / "outputs").exists()


def mirrors_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if "wandb_process" in command_of(child)]


def test_f7_a_signal_while_wandb_starts(tmp_path: Path) -> None:
    """SIGTERM to every process of a job while W&B starts: the run saves, and its mirror ends by itself, complete."""
    outputs = tmp_path / "outputs"
    line = [*ENDLESS, "logger=wandb", "logger.wandb.mode=offline", f"outputs={outputs}"]
    run = Forked(tmp_path / "said", *line)
    wait_until(lambda: bool(mirrors_of(run.pid)), what="the mirror")
    (mirror,) = mirrors_of(run.pid)
    wait_until(lambda: ignores(mirror), what="its first line")
    for pid in (run.pid, mirror):
        os.kill(pid, signal.SIGTERM)
    assert run.wait() == 75
    assert_saved(outputs, 75, run.stderr().splitlines())
    wait_until(lambda: not lives(mirror), what="the mirror's end")
    (said,) = outputs.glob("*/*/*/wandb.json")
    mirrored = read_json(said)
    assert mirrored["exit_code"] == 75
    assert mirrored["rows"] == rows_below(outputs)


# ------------------------------------------------------------------------------------------------------ F8: a storm


@pytest.mark.parametrize("from_the_start", [True, False])
def test_f8_a_storm_of_signals_is_one_save_and_one_exit_code(from_the_start: bool, tmp_path: Path) -> None:
    """SIGUSR1 and SIGTERM again and again until the process is gone: one save at most, one line, exit 75 once."""
    outputs = tmp_path / "outputs"
    run = Launched(tmp_path / "said", *ENDLESS, f"outputs={outputs}")
    wait_until(lambda: handles(run.pid) if from_the_start else rows_below(outputs) > 0, what="the moment")
    for number in itertools.cycle([signal.SIGUSR1] * 5 + [signal.SIGTERM]):
        run.send(number)
        time.sleep(0.002)
        if not run.running():
            break
    assert run.end() == 75
    assert len(run.errors()) == 1
    if not from_the_start:
        assert_saved(outputs, 75, run.errors())
        assert len(checkpoints(outputs)) == 1
