"""Sweeps whose jobs fail in every way, and sweeps whose jobs must not know of each other."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from rlexp.experiment.standing import Standing, standing_of
from rlexp.storage import read_json
from tests.cli.faulty import write_package
from tests.experiment.support import rows_of
from tests.faults.lab import SMALL, Launched, processes_of_group

ELSEWHERE = {
    "F53": [
        "tests/cli/test_multirun.py::test_twelve_jobs_of_which_one_raises_one_is_killed_and_one_turns_non_finite",
        "tests/cli/test_multirun.py::test_a_job_that_leaves_the_interpreter_or_has_a_bug_does_not_sink_the_sweep",
        "tests/cli/test_multirun.py::test_a_stopped_sweep_leaves_no_job_running_and_each_has_saved",
    ]
}

SIDE_BY_SIDE = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
FAULTS = {1: "raise", 2: "kill", 3: "memory", 4: "exit", 5: "nan"}
"""Of the job with that seed; 0 and 6 are left alone."""


def standings(outputs: Path) -> dict[int, Standing]:
    """By seed, the runs below."""
    runs = [path.parent for path in outputs.glob("*/*/s*/run.json")]
    return {int(read_json(run / "run.json")["seed"]): standing_of(run) for run in runs}


def table_of(sweep: Launched) -> dict[int, str]:
    """By seed, what the table at the end says of the jobs that failed."""
    said = "\n".join(sweep.errors())
    return {int(seed): why for seed, why in re.findall(r"^  job \d +failed +.*? s(\d)  +(.*)$", said, re.MULTILINE)}


def begun_by(sweep: Launched) -> set[int]:
    said = "\n".join(sweep.errors())
    return {int(seed) for seed in re.findall(r"^job \d of \d begins: .*s(\d)$", said, re.MULTILINE)}


def test_f53_jobs_that_fail_in_every_way_do_not_sink_the_sweep(tmp_path: Path) -> None:
    """A sweep of seven jobs side by side: an environment raises, one returns NaN, one finds no memory, one leaves its
    process with code 0, and one job is killed. The two others finish, a table names the five, the exit code is the
    first one's, no process is left. The same command, the cause mended, runs these five alone.
    """
    words = ["-m", "seed=range(0,7)", *write_package(tmp_path), "logger=local", "display=none", *SIDE_BY_SIDE]
    faults = ";".join(f"{fault}:seed={seed}" for seed, fault in FAULTS.items())
    sweep = Launched(tmp_path / "said", *words, cwd=tmp_path, environment={"FAULTS": faults})
    assert sweep.end(300) == 3
    stands = standings(tmp_path / "outputs")
    assert {seed for seed, stand in stands.items() if stand.state == "finished"} == {0, 6}
    told = table_of(sweep)
    assert set(told) == set(FAULTS)
    assert "RuntimeError: the pole broke" in told[1]
    assert "killed by SIGKILL" in told[2]
    assert "emory" in told[3]
    assert told[4] == "its process ended with code 0 before the run was finished"
    assert "not finite" in told[5]
    assert {seed: stands[seed].exit_code for seed in (1, 2, 4, 5)} == {1: 3, 2: 137, 4: 1, 5: 4}
    assert processes_of_group(sweep.pid) == []
    again = Launched(tmp_path / "again", *words, cwd=tmp_path)
    assert again.end(300) == 0
    assert begun_by(again) == set(FAULTS)
    assert {stand.state for stand in standings(tmp_path / "outputs").values()} == {"finished"}


def test_f53_a_job_that_hangs_ends_at_its_deadline(tmp_path: Path) -> None:
    """A sweep of two jobs, one of whose environments hangs: it ends at the deadline of a step with code 3, the other
    finishes.
    """
    words = ["-m", "seed=0,1", *write_package(tmp_path), "logger=local", "display=none"]
    words += ["execution.vector=async", "execution.workers=1", "execution.step_deadline=3"]
    sweep = Launched(tmp_path / "said", *words, *SIDE_BY_SIDE, cwd=tmp_path, environment={"FAULTS": "hang:seed=0"})
    assert sweep.end(300) == 3
    stands = standings(tmp_path / "outputs")
    assert (stands[0].state, stands[0].exit_code, stands[1].state) == ("failed", 3, "finished")
    assert set(table_of(sweep)) == {0}
    assert processes_of_group(sweep.pid) == []


COMMON = ["algorithm.gamma=0.9", *(word for word in SMALL if not word.startswith("algorithm="))]


def digests(outputs: Path) -> dict[Path, str]:
    """Of each run below, SHA-256 of all rows but for their times."""
    return {
        run.relative_to(outputs): hashlib.sha256(json.dumps(rows_of(run), sort_keys=True).encode()).hexdigest()
        for run in outputs.glob("*/*/s?")
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """The last job of the sweep below and the one in its middle, each the only run of its process."""
    folder = tmp_path_factory.mktemp("alone")
    runs = [
        Launched(folder / words[0], *words, *COMMON, f"outputs={folder / 'outputs'}")
        for words in (["algorithm=ppo", "seed=1"], ["algorithm=a2c", "seed=1"])
    ]
    assert [run.end(300) for run in runs] == [0, 0]
    return digests(folder / "outputs")


@pytest.mark.parametrize("launcher", [[], SIDE_BY_SIDE], ids=["one_after_the_other", "side_by_side"])
def test_f54_a_job_is_the_same_alone_and_in_any_place_of_a_sweep(
    launcher: list[str], alone: dict[Path, str], tmp_path: Path
) -> None:
    """The jobs of a sweep over algorithms and seeds, one after the other in one process and side by side, have the
    rows, hashed, of the same commands alone.
    """
    words = ["-m", "algorithm=a2c,ppo", "seed=0,1", *COMMON, *launcher]
    sweep = Launched(tmp_path / "said", *words, f"outputs={tmp_path / 'outputs'}")
    assert sweep.end(300) == 0, sweep.errors()
    together = digests(tmp_path / "outputs")
    assert len(set(together.values())) == len(together) == 4
    assert len(alone) == 2
    assert alone.items() <= together.items()
