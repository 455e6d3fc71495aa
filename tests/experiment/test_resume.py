"""A continued run is the run that was never stopped: rows, final weights and last checkpoint, bit for bit."""

import copy
import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_storm import CASES, SHORT, die_at, difference, live, remains

from rlexp import storage
from rlexp.errors import ConfigError, StorageError
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import compose_jobs
from rlexp.experiment.display import Display
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.run import choose_directory, run
from rlexp.experiment.session import result_line
from rlexp.experiment.status import read_status
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.storage.rows import read_rows
from tests.experiment.support import Forked


def start(overrides: list[str], outputs: Path) -> Path:
    """Run in this process; returns the run's folder."""
    return run(_checked(overrides, outputs), Display("none")).directory


def _checked(overrides: list[str], outputs: Path) -> Checked:
    """Composed and checked once for each command line: that takes longer than these runs do."""
    checked = _checked_once((*SHORT, *overrides))
    return dataclasses.replace(checked, config={**checked.config, "outputs": str(outputs)})


@functools.cache
def _checked_once(overrides: tuple[str, ...]) -> Checked:
    (job,) = compose_jobs(overrides)
    return check(job.config, job.overrides)


QUICK = ("ppo", "dqn", "value_iteration", "reinforce")
"""One of each kind of experience; the others take minutes."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_killed_runs_equal_the_undisturbed_one(case: str, tmp_path: Path) -> None:
    overrides = [*SHORT, *CASES[case], *([] if case == "value_iteration" else ["total_env_steps=1000"])]
    assert live(overrides, tmp_path / "undisturbed") == 0
    expected = remains(overrides, tmp_path / "undisturbed")
    # Early, inside a save (each is some ten operations), and between rows.
    deaths = (5, 31, 44, 57)
    for n in deaths:
        assert live(overrides, tmp_path / "killed", die_at(n)) == -signal.SIGKILL
    assert live(overrides, tmp_path / "killed") == 0
    assert difference(expected, remains(overrides, tmp_path / "killed")) is None


NORMALISED = ["normalization=observations_and_rewards"]


class Crash(BaseException):
    """Nobody expects it."""


ROLLOUTS = ["algorithm=ppo", "experience.rollout_length=12", "algorithm.num_minibatches=2", "algorithm.num_epochs=1"]
WHOLE = ["algorithm=reinforce", "experience.num_episodes=4", "env.time_limit=15"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        [*lead, f"experience.num_envs={num_envs}", *normalised, *seeds]
        for lead, num_envs in ((ROLLOUTS, 1), (ROLLOUTS, 4), (WHOLE, 2))
        for normalised in ([], NORMALISED)
        for seeds in ([], ["seeds=[0,1]"])
    ],
    ids=lambda line: " ".join(line[:1] + line[-3:]),
)
def test_a_run_that_crashed_under_one_vector_goes_on_under_another(line: list[str], tmp_path: Path) -> None:
    """In this process: a fork of it must not share its fork server."""
    overrides = [*line, "total_env_steps=480", "checkpoint.interval=60"]
    start([*overrides, "execution.vector=sync"], tmp_path / "undisturbed")
    for vector in ("sync", "numpy", "async"):
        storage.before_operation = crash_in_checkpoint(3)
        with pytest.raises(Crash):
            start([*overrides, f"execution.vector={vector}"], tmp_path / "crashed")
    folder = start([*overrides, "execution.vector=numpy"], tmp_path / "crashed")
    assert len({session["from_env_steps"] for session in storage.read_json(folder / "sessions.json")["sessions"]}) == 4
    both = [remains([*SHORT, *overrides], tmp_path / name) for name in ("undisturbed", "crashed")]
    assert difference(*both) is None


def crash_in_checkpoint(n: int) -> Callable[[str, Path], None]:
    """A hook that raises before the n-th checkpoint is in its place."""
    count = itertools.count(1)

    def hook(operation: str, path: Path) -> None:
        if operation == "rename" and path.parent.name == "checkpoints" and next(count) == n:
            raise Crash

    return hook


# --------------------------------------------------------------------------------------- every saved field is needed

MUTATED = {
    "ppo": ["algorithm=ppo", "total_env_steps=900", "experience.rollout_length=30", "algorithm.num_epochs=1"],
    "dqn": ["algorithm=dqn", "total_env_steps=900", "experience.learning_starts=200", "experience.capacity=1000"],
    "sac": ["algorithm=sac", "total_env_steps=900", "experience.learning_starts=200", "experience.capacity=1000"],
}
MUTATED["a2c"] = ["algorithm=a2c", "total_env_steps=900", "algorithm.shared_encoder=true"]
MUTATED["reinforce"] = [
    "algorithm=reinforce",
    "total_env_steps=900",
    "experience.num_episodes=2",
    "experience.num_envs=2",
]
MUTATED["reinforce"] += ["normalization=observations_and_rewards"]
MUTATED["reinforce_stacked"] = [*MUTATED["reinforce"], "seeds=[2,22]"]  # of both a next row is pending
MUTATED["ppo"] += ["experience.num_envs=2", "normalization=observations_and_rewards"]
MUTATED["dqn"] += ["experience.updates_per_collection=2", "env.time_limit=13"]
MUTATED["sac"] += [
    "normalization=observations_and_rewards",
    "env=pendulum",
    "env.time_limit=13",
    "network.hidden=[8]",
    "experience.batch_size=16",
    "seed=1",
]
# Seed 1: its best evaluation is not the last, so that to forget it is noticed.
COMMON = ["checkpoint.interval=300", "checkpoint.keep=20", "logger.interval=130", "evaluation.interval=300"]


def fields(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all leaves; a list of plain values, and what a row has yet to reduce, are leaves."""
    if isinstance(tree, dict) and tree and path[:2] != ("rows", "pending"):
        for key, value in tree.items():
            yield from fields(value, (*path, key))
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        for index, value in enumerate(tree):
            yield from fields(value, (*path, index))
    else:
        yield path


def get(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def without(tree: Any, path: tuple[Any, ...]) -> Any:
    """The tree with one leaf as it would be had it not been saved."""
    changed = copy.deepcopy(tree)
    value = get(tree, path)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        nothing: Any = value * 0 if value.any() else value[:0]  # actions may all be 0
    else:
        nothing = {bool: False, int: 0, float: float("-inf"), list: [], dict: {}}[type(value)]
    get(changed, path[:-1])[path[-1]] = nothing
    return changed


def resumed_from(tree: Any, origin: Path, checkpoint: str, overrides: list[str], outputs: Path) -> str | None:
    """Go on from a tree put in the place of a checkpoint; the first difference to the undisturbed run, or None."""
    directory = choose_directory(_checked(overrides, outputs).config)
    for folder in ("checkpoints", "weights", "evaluations"):
        (directory / folder).mkdir(parents=True)
    for folder in [origin] if (origin / "rows.jsonl").exists() else origin.glob("s*/"):
        (directory / folder.relative_to(origin) / "weights").mkdir(parents=True, exist_ok=True)
        for kept in ("rows.jsonl", "weights/best"):
            storage.copy_tree(folder / kept, directory / folder.relative_to(origin) / kept)
    save_tree(directory / "checkpoints" / checkpoint, tree)
    try:
        start(overrides, outputs)
    except Exception as error:  # a run that cannot go on has noticed, too
        return f"raised {type(error).__name__}"
    expected = remains([*SHORT, *overrides], origin.parents[2])
    return difference(expected, remains([*SHORT, *overrides], outputs))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in ("ppo", "dqn") else pytest.mark.slow) for case in MUTATED]
)
def test_dropping_any_saved_field_is_noticed(case: str, tmp_path: Path) -> None:
    overrides = [*MUTATED[case], *COMMON]
    origin = start(overrides, tmp_path / "undisturbed")
    middle = sorted((origin / "checkpoints").glob("[0-9]*"))[1]
    tree = load_tree(middle)
    assert resumed_from(tree, origin, middle.name, overrides, tmp_path / "whole") is None
    unnoticed, empty = [], []
    for number, path in enumerate(fields(tree)):
        changed = without(tree, path)
        if difference(tree, changed) is None:
            empty.append(path)
        elif resumed_from(changed, origin, middle.name, overrides, tmp_path / f"{number}") is None:
            unnoticed.append(path)
    assert unnoticed == []
    # A leaf that holds nothing at this checkpoint proves nothing. A train state may have no stream of its own, between
    # batches of whole episodes nothing has been played of the next ones, nothing need be normalised, and no seed failed
    # (test_stacked.py has one).
    nothing = {("state", "streams"), ("state", "frozen"), ("failures", "messages"), ("experience", "normaliser")}
    if case.startswith("reinforce"):
        nothing |= {("experience", "vector", "episodes", i, "actions") for i in range(4)}
        nothing |= {("state", "members", s, of) for s in range(2) for of in ("streams", "frozen")}
    assert set(empty) <= nothing


def test_seeds_that_end_apart_go_on_from_each_of_their_last_turns(tmp_path: Path) -> None:
    """Also from those at which a seed has reached its end and others have not."""
    overrides = [*MUTATED["reinforce"], "seeds=[0,1,2]", "total_env_steps=250", "checkpoint.interval=1"]
    overrides += ["checkpoint.keep=99", "logger.interval=90", "evaluation.interval=120"]
    origin = start(overrides, tmp_path / "undisturbed")
    resting = []
    for number, checkpoint in enumerate(sorted((origin / "checkpoints").glob("[0-9]*"))[-4:-1]):
        tree = load_tree(checkpoint)
        resting.append(sum(env_steps >= 250 for env_steps in tree["experience"]["env_steps"]))
        assert resumed_from(tree, origin, checkpoint.name, overrides, tmp_path / f"{number}") is None
    assert resting == [0, 1, 2]


def test_mutation_reaches_every_kind_of_state(tmp_path: Path) -> None:
    """The cases above together hold each part that a checkpoint can have."""
    names = set()
    for number, overrides in enumerate(MUTATED.values()):
        directory = start([*overrides, *COMMON], tmp_path / str(number))
        tree = load_tree(max((directory / "checkpoints").glob("[0-9]*")))
        names |= {".".join(str(key) for key in path if not isinstance(key, int)) for path in fields(tree)}
    for needed in (
        "state.updates",
        "state.weights.target_q",
        "state.optimizers.actor.exp_avg_sq",
        "state.streams.minibatches.counter",
        "state.streams.next actions.counter",
        "state.optimizers.temperature.exp_avg",
        "experience.collector.vector.episodes.actions",
        "experience.collector.streams.counter",
        "experience.normaliser.observations.mean",
        "experience.normaliser.running",
        "experience.buffer.columns.next_observation",
        "experience.streams.counter",
        "rows.rows",
        "evaluation.best",
    ):
        assert needed in names


# --------------------------------------------------------------------------------------------------- damaged, finished


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    overrides = ["algorithm=value_iteration", "env=cliff_walking", "checkpoint.interval=5", "logger.interval=1"]
    expected_folder = start([*overrides, "total_env_steps=60"], tmp_path / "undisturbed")
    folder = start([*overrides, "total_env_steps=60"], tmp_path / "damaged")
    newest = max((folder / "checkpoints").glob("[0-9]*"))
    tensors = newest / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    storage.write_json(folder / "status.json", {"state": "running"})
    start([*overrides, "total_env_steps=60"], tmp_path / "damaged")
    assert load_tree(newest)  # saved again, whole
    assert difference(*(_rows(f) for f in (expected_folder, folder))) is None


def test_no_good_checkpoint_left_is_an_error_and_keeps_the_rows(tmp_path: Path) -> None:
    overrides = ["algorithm=value_iteration", "env=cliff_walking", "logger.interval=1"]
    folder = start(overrides, tmp_path)
    for checkpoint in (folder / "checkpoints").glob("[0-9]*"):
        (checkpoint / "manifest.json").write_text("{}")
    storage.write_json(folder / "status.json", {"state": "running"})
    rows = (folder / "rows.jsonl").read_bytes()
    with pytest.raises(StorageError, match="no good checkpoint"):
        start(overrides, tmp_path)
    assert (folder / "rows.jsonl").read_bytes() == rows
    assert read_status(folder)["exit_code"] == 5


def test_a_finished_run_says_so_and_restart_makes_another_beside_it(tmp_path: Path) -> None:
    checked = _checked(["algorithm=value_iteration", "env=frozen_lake"], tmp_path)
    first = run(checked, Display("none"))
    again = run(checked, Display("none"))
    assert (first.was_finished, again.was_finished) == (False, True)
    assert result_line(first).startswith("finished: final return")
    assert result_line(again) == result_line(first).replace("finished:", "finished already:")
    anew = run(dataclasses.replace(checked, config={**checked.config, "restart": True}), Display("none"))
    assert (first.directory.name, anew.directory.name) == ("s0", "s0-2")
    assert not anew.was_finished


def test_extend_goes_on_from_a_finished_run(tmp_path: Path) -> None:
    parent = start(MUTATED["ppo"], tmp_path)
    line = [f"extend={parent}", f"outputs={tmp_path}", "logger=local", "display=none"]
    (job,) = checked_jobs([*line, "total_env_steps=1500"], multirun=False)
    child = run(job, Display("none")).directory
    assert child != parent
    rows = read_rows(child / "rows.jsonl")
    assert rows[-1]["env_steps"] == 1500
    assert rows[0] == read_rows(parent / "rows.jsonl")[0]
    for refused in (["total_env_steps=900"], ["total_env_steps=1500", "algorithm.gamma=0.5"]):
        with pytest.raises(ConfigError):
            checked_jobs([*line, *refused], multirun=False)


# ---------------------------------------------------------------------------------------------- signals, two at once


LONG = [*SHORT, "algorithm=ppo", "total_env_steps=1000000", "logger.interval=500"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_the_same_command_continues(number: signal.Signals, code: int, tmp_path: Path) -> None:
    if number == signal.SIGINT:  # the interpreter has a handler of its own for this one
        process = spawn(*LONG, f"outputs={tmp_path}")
        folder = _wait_for_rows(tmp_path, 3)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        returned = process.returncode
    else:
        forked = Forked(tmp_path / "said", *LONG, f"outputs={tmp_path}")
        folder = _wait_for_rows(tmp_path, 3)
        os.kill(forked.pid, number)
        returned, stderr = forked.wait(), forked.stderr()
    assert returned == code
    assert stderr.count("\n") == 1
    assert "the same command continues" in stderr
    status = read_status(folder)
    assert (status["state"], status["exit_code"]) == ("interrupted", code)
    saved = int(max((folder / "checkpoints").glob("[0-9]*")).name)
    assert saved >= read_rows(folder / "rows.jsonl")[-1]["env_steps"] > 0
    assert f"saved at env_steps={saved};" in stderr


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_although_workers_get_it_too(tmp_path: Path) -> None:
    overrides = [*LONG, f"outputs={tmp_path}", "execution.vector=async"]
    process = spawn(*overrides, "execution.workers=2", start_new_session=True)
    folder = _wait_for_rows(tmp_path, 1)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75
    assert stderr.count("\n") == 1
    assert list((folder / "checkpoints").glob("[0-9]*"))


def test_two_processes_in_one_run(tmp_path: Path) -> None:
    processes = [Forked(tmp_path / f"said{i}", *LONG, f"outputs={tmp_path}") for i in range(2)]
    deadline = time.monotonic() + 60
    ended: dict[Forked, int] = {}
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
        ended = {process: status for process in processes if (status := process.ended()) is not None}
    ((refused, status),) = ended.items()
    (running,) = [process for process in processes if process is not refused]
    assert status == 5
    assert f"process {running.pid} on" in refused.stderr()
    os.kill(running.pid, signal.SIGINT)
    assert running.wait() == 130


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = read_rows(folder / "rows.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def _wait_for_rows(outputs: Path, count: int) -> Path:
    for _ in range(1200):
        found = list(outputs.glob("*/*/s0/rows.jsonl"))
        if found and len(found[0].read_bytes().splitlines()) >= count:
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError("no rows came")


def spawn(*overrides: str, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlexp", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_difference_sees_single_bits() -> None:
    """The comparison that the tests above stand on."""
    tree = {"a": [1, {"b": np.arange(3.0)}], "c": torch.zeros(2), "d": float("nan")}
    assert difference(tree, copy.deepcopy(tree)) is None
    for path, value in (
        (("a", 0), 2),
        (("a", 1, "b"), np.nextafter(np.arange(3.0), 9)),
        (("c",), torch.zeros(2).neg()),
    ):
        changed = copy.deepcopy(tree)
        get(changed, path[:-1])[path[-1]] = value
        assert difference(tree, changed) is not None
    assert json.dumps(list(itertools.islice(fields(tree), 9)))
