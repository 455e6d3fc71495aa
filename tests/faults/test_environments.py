"""Environments that raise, die, hang or lie, in real runs."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree
from rlexp.storage.rows import read_rows
from tests.experiment.support import TINY, Forked
from tests.faults.lab import Launched, rows_below, run_below, under_load, wait_until
from tests.faults.liar import PLUGIN, Liar

ELSEWHERE = {
    "F37": ["tests/envs/test_asynchronous.py::test_what_an_environment_does_wrong_is_the_line_of_sync_vector"],
    "F38": [
        "tests/envs/test_asynchronous.py::test_a_worker_that_dies_is_named",
        "tests/envs/test_asynchronous.py::test_a_worker_that_died_between_steps_is_named",
    ],
    "F39": [
        "tests/envs/test_asynchronous.py::test_a_hanging_environment_meets_the_deadline",
        "tests/envs/test_asynchronous.py::test_an_environment_that_hangs_while_it_is_made_meets_the_deadline",
    ],
}

PPO = ["algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=20", *TINY]

ONCE = ["evaluation.interval=800", "evaluation.final_episodes=2"]
"""Few evaluations, and few environments to close."""


def lying(tmp_path: Path, *words: str, **lie: Any) -> tuple[int, str, Path | None]:
    """A run in an environment that lies as LIAR says: its exit code, the last line of its errors, its folder."""
    outputs = tmp_path / "outputs"
    told = {"LIAR": json.dumps(lie)}
    line = [*PLUGIN, *PPO, *words, f"outputs={outputs}"]
    run = Forked(tmp_path / "said", *line, prepare=lambda: os.environ.update(told))
    try:
        code = run.wait(120)
    except AssertionError:
        os.kill(run.pid, signal.SIGKILL)
        raise
    (*_, last) = run.stderr().splitlines() or [""]
    return code, last, run_below(outputs)


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_f36_an_environment_raises_in_mid_episode(vector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that raises ends the run with code 3, a line that names environment, seed and step, and a file
    whose actions play the failure again."""
    code, last, folder = lying(tmp_path, f"execution.vector={vector}", fault="raise", step=237)
    assert (code, last.count("rlexp: error[3]: Liar-v0: TwoArguments: the motor is hot; environment ")) == (3, 1)
    assert folder is not None
    failed = read_json(folder / "failed_episode.json")
    assert f"episode seed {failed['seed']}, step {len(failed['actions']) - 1};" in last
    monkeypatch.setenv("LIAR", json.dumps({"fault": "raise", "step": len(failed["actions"])}))
    env = Liar()
    env.reset(seed=failed["seed"])
    for action in failed["actions"][:-1]:
        assert not env.step(action)[2]
    with pytest.raises(Exception, match="the motor is hot"):
        env.step(failed["actions"][-1])


def test_f37_an_exception_that_does_not_pickle(tmp_path: Path) -> None:
    """An exception that cannot be sent from a worker comes as its text, and the run ends with code 3."""
    code, last, _ = lying(tmp_path, "execution.vector=async", fault="raise", where="reset")
    assert code == 3
    assert last.startswith("rlexp: error[3]: Liar-v0: TwoArguments: the motor is hot; environment 0, episode seed ")


def workers_of(run: int) -> list[int]:
    """Processes whose parent's parent is the run: those of its fork server."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return [pid for pid, parent in parents.items() if parents.get(parent) == run]


def test_f38_a_worker_is_killed_in_mid_run(tmp_path: Path) -> None:
    """A run whose worker is killed ends with code 3 within two seconds, names it, and the same command goes on."""
    outputs = tmp_path / "outputs"
    line = [*PPO, "execution.vector=async", "total_env_steps=2_000_000", "checkpoint.interval=200", "env=pendulum"]
    run = Launched(tmp_path / "said", *line, f"outputs={outputs}")
    wait_until(lambda: len(list(outputs.glob("*/*/*/checkpoints/[0-9]*"))) == 2, what="the second checkpoint")
    victim = workers_of(run.pid)[0]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    assert run.end() == 3
    assert time.monotonic() - killed < under_load(2.0)
    assert f"(process {victim}) died by SIGKILL (out of memory?); environments [" in run.errors()[-1]
    folder = run_below(outputs)
    assert folder is not None
    reached = max(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*"))
    again = Launched(tmp_path / "again", *line, f"outputs={outputs}")
    wait_until(lambda: read_rows(folder / "rows.jsonl")[-1]["env_steps"] > reached + 2000, what="new rows")
    again.send(signal.SIGTERM)
    assert again.end() == 75


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        ({"fault": "hang", "step": 30}, "step"),
        ({"fault": "spin", "step": 30}, "step"),
        ({"fault": "hang", "where": "reset"}, "reset"),
    ],
)
def test_f39_an_environment_hangs_in_a_worker(lie: dict[str, Any], what: str, tmp_path: Path) -> None:
    """An environment that hangs in a worker, also in C code, meets the deadline: code 3, a line that names it."""
    code, last, _ = lying(tmp_path, "execution.vector=async", "execution.step_deadline=1", **lie)
    assert code == 3
    assert f"did not {what} its environments within 1 s; environments [" in last


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        ({"step": 30}, "did not step within 1 s; "),
        ({"where": "reset"}, "did not reset within 1 s; "),
        ({"where": "make"}, "did not start within 1 s; "),
    ],
)
def test_f39_an_environment_hangs_in_the_runs_process(lie: dict[str, Any], what: str, tmp_path: Path) -> None:
    """An environment that hangs in the run's own process meets the deadline: code 3, a line that names it.

    C code that keeps Python's interpreter cannot be interrupted there; workers are for that.
    """
    code, last, _ = lying(tmp_path, "execution.step_deadline=1", fault="hang", **lie)
    assert code == 3
    assert f"Liar-v0: {what}" in last


@pytest.mark.parametrize(
    ("lie", "code", "said"),
    [
        ({"step": 30}, 3, "Liar-v0: did not step within 0.5 s; "),
        ({"where": "reset"}, 3, "Liar-v0: did not reset within 0.5 s; "),
        ({"where": "make"}, 3, "Liar-v0: did not start within 0.5 s; "),
        ({"where": "close"}, 0, ""),
    ],
)
def test_f39_an_environment_that_catches_every_exception_hangs(
    lie: dict[str, Any], code: int, said: str, tmp_path: Path
) -> None:
    """An environment that hangs in the run's own process and catches whatever Exception is raised in it meets the
    deadline all the same; where it is closed, the finished run ends."""
    ended, last, _ = lying(tmp_path, *ONCE, "execution.step_deadline=0.5", fault="swallow", **lie)
    assert ended == code
    assert said in last


def test_f39_an_environment_hangs_in_an_evaluation(tmp_path: Path) -> None:
    """An environment that hangs while it is evaluated, in the run's process though training has workers, meets the
    deadline."""
    line = ["execution.step_deadline=1", "execution.vector=async"]
    code, last, folder = lying(tmp_path, *line, fault="hang", step=5, worker=False)
    assert code == 3
    assert "did not step within 1 s; " in last
    assert folder is not None
    assert [row["kind"] for row in read_rows(folder / "rows.jsonl")].count("train") == 5


@pytest.mark.parametrize("fault", ["raise", "hang", "spin"])
def test_f39_an_environment_hangs_or_raises_while_it_is_closed(fault: str, tmp_path: Path) -> None:
    """What an environment does when it is closed by a worker does not keep a finished run from its end."""
    code, _, folder = lying(tmp_path, *ONCE, "execution.vector=async", fault=fault, where="close", worker=True)
    assert folder is not None
    assert (code, read_json(folder / "status.json")["state"]) == (0, "finished")


@pytest.mark.parametrize("fault", ["raise", "hang"])
def test_f39_an_environment_is_closed_in_the_runs_process(fault: str, tmp_path: Path) -> None:
    """An environment that raises or hangs when it is closed does not keep a finished run from its end."""
    code, _, folder = lying(tmp_path, *ONCE, "execution.step_deadline=0.2", fault=fault, where="close")
    assert folder is not None
    assert (code, read_json(folder / "status.json")["state"]) == (0, "finished")


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [("nan observation", "observation[2] is nan"), ("inf observation", "observation[1] is -inf")],
)
def test_f40_an_observation_is_not_finite(fault: str, said: str, vector: str, tmp_path: Path) -> None:
    """One number of one observation in mid-episode that is not finite ends the run with code 4 and a line that names
    the place and the value, and the last finite checkpoint is kept."""
    line = [f"execution.vector={vector}", "checkpoint.interval=40"]
    code, last, folder = lying(tmp_path, *line, fault=fault, step=205)
    assert code == 4
    assert f"Liar-v0: a reward or observation is not finite: {said}; environment " in last
    assert folder is not None
    assert_last_checkpoint_is_finite(folder)


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_f41_an_observation_far_outside_the_space(vector: str, tmp_path: Path) -> None:
    """An observation a thousand million times too large ends the run with code 3 and a line with place and value.

    One a little outside is let pass: Gymnasium's own LunarLander and BipedalWalker leave their spaces by a third.
    """
    code, last, _ = lying(tmp_path, f"execution.vector={vector}", fault="far observation", step=205)
    assert code == 3
    assert "Liar-v0: observation[" in last
    assert ", far outside the space that it declares; environment " in last


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("long observation", "the observation has the shape (8,), declared is (4,)"),
        ("short observation", "the observation has the shape (1,), declared is (4,)"),
        ("scalar observation", "the observation has the shape (), declared is (4,)"),
        ("text observation", "the observation has the shape (), declared is (4,)"),
    ],
)
def test_f42_an_observation_of_another_shape_or_type(fault: str, said: str, tmp_path: Path) -> None:
    """An observation of another shape or type, also one that NumPy would broadcast, ends the run with code 3."""
    code, last, _ = lying(tmp_path, fault=fault, step=205)
    assert code == 3
    assert f"Liar-v0: {said}; environment " in last


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("nan reward", 4, "a reward or observation is not finite: the return is nan; environment "),
        ("inf reward", 4, "a reward or observation is not finite: the return is inf; environment "),
        ("array reward", 3, "TypeError: "),
        ("no reward", 3, "TypeError: "),
    ],
)
def test_f43_a_reward_is_no_number(fault: str, code: int, said: str, tmp_path: Path) -> None:
    """A reward that is not finite ends the run with code 4, one that is no number with code 3; a line names it."""
    ended, last, _ = lying(tmp_path, fault=fault, step=205)
    assert ended == code
    assert f"rlexp: error[{code}]: Liar-v0: {said}" in last
    assert ", episode seed " in last


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("half terminated", "terminated is 0.5, neither true nor false"),
        ("no terminated", "terminated is None, neither true nor false"),
        ("text truncated", "truncated is 'yes', neither true nor false"),
    ],
)
def test_f44_a_flag_is_neither_true_nor_false(fault: str, said: str, tmp_path: Path) -> None:
    """A flag that is neither true nor false would be learned from as a number; it ends the run with code 3."""
    code, last, _ = lying(tmp_path, fault=fault, step=205)
    assert code == 3
    assert f"Liar-v0: {said}; environment " in last


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_f44_spaces_that_are_not_the_declared_ones(vector: str, tmp_path: Path) -> None:
    """An environment with other spaces than were declared of it is refused with code 3 before its first step."""
    code, last, folder = lying(tmp_path, f"execution.vector={vector}", fault="other spaces")
    assert code == 3
    assert "Liar-v0: its observations have the shape (6,), declared is (4,)" in last
    assert folder is not None
    assert read_rows(folder / "rows.jsonl") == []


def test_f44_an_environment_that_ignores_its_seed(tmp_path: Path) -> None:
    """A run whose environment ignores its seed trains, and says that it is no longer exact when it is continued."""
    outputs, told = tmp_path / "outputs", {"LIAR": json.dumps({"fault": "seed ignored"})}
    line = [*PLUGIN, *PPO, "display=plain", "total_env_steps=10_000_000", f"outputs={outputs}"]

    def until(rows: int) -> str:
        run = Forked(tmp_path / "said", *line, prepare=lambda: os.environ.update(told))
        wait_until(lambda: rows_below(outputs) > rows, what="more rows")
        os.kill(run.pid, signal.SIGTERM)
        assert run.wait() == 75
        return run.stderr()

    until(2)
    said = until(rows_below(outputs) + 2)
    assert "this run is no longer exact: environments [0, 1] do not repeat themselves" in said
    folder = run_below(outputs)
    assert folder is not None
    assert read_json(folder / "sessions.json")["exact"] is False


def assert_last_checkpoint_is_finite(folder: Path) -> None:
    import torch

    newest = max((folder / "checkpoints").glob("[0-9]*"))

    def look(node: Any) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            look(value)
        if hasattr(node, "dtype"):
            assert torch.as_tensor(node).isfinite().all()

    look(load_tree(newest))
