"""Sweeps: what is refused, what is said, what becomes of a job that fails, is killed or is stopped."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlexp.cli import multirun
from rlexp.cli.check import command as check_command
from rlexp.cli.main import command as main_command
from rlexp.cli.status import command as status_command
from rlexp.errors import ConfigError, Interrupted, StorageError
from rlexp.experiment import run as experiment_run
from rlexp.experiment.identity import name_of_seed
from rlexp.experiment.launcher import Launcher, split_launcher
from rlexp.experiment.plans import job_names
from rlexp.experiment.standing import standing_of
from rlexp.experiment.status import read_status
from rlexp.storage import read_json
from rlexp.storage.locks import is_locked, locked
from tests.cli.faulty import OVERRIDES, write_package
from tests.experiment.support import TINY, rows_of, run_in
from tests.experiment.wandb_runs import inspect, mirrored, no_account, wait_for, wandb_folders

__all__ = ["no_account"]  # a fixture for every test here

LAKE = ["algorithm=value_iteration", "env=frozen_lake", *TINY]

# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=jblib"], "there is no such launcher (did you mean 'joblib'?); choose basic or joblib"),
        (["hydra/launcher=submitit_slurm"], "there is no such launcher; choose basic or joblib"),
        (["hydra/launcher=basic,joblib"], "must be one value"),
        (["~hydra/launcher"], "must be one value"),
        (["hydra/sweeper=optuna"], "a sweep is every combination of the values"),
        (["hydra.sweeper.max_batch_size=2"], "a sweep is every combination of the values"),
        (["hydra.launcher.n_jobs=2"], "is for hydra/launcher=joblib"),
        (["hydra/launcher=joblib", "hydra.launcher.n_job=2"], "unknown key (did you mean 'hydra.launcher.n_jobs'?)"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "must be a whole number from 1"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=two"], "must be a whole number from 1"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=1.5"], "must be a whole number from 1"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=true"], "must be a whole number from 1"),
        (["seed=0,0"], "are the same run"),
        (["seed=0", "execution.threads=1,2"], "execution.threads=2 makes no other experiment"),
    ],
)
@pytest.mark.parametrize("command", [main_command, check_command], ids=["rlexp", "rlexp-check"])
def test_what_cannot_be_launched_is_refused_before_anything_is_made(
    command: Any, words: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        command(["-m", *LAKE, *words, f"outputs={tmp_path / 'outputs'}"])
    assert not (tmp_path / "outputs").exists()


def test_a_launcher_needs_a_sweep() -> None:
    with pytest.raises(ConfigError, match="add -m"):
        check_command(["hydra/launcher=joblib"])


def test_a_launcher_says_how_many_run_at_once() -> None:
    cores = len(os.sched_getaffinity(0))
    assert split_launcher(["seed=0,1"], multirun=True) == (Launcher(None), ["seed=0,1"])
    assert split_launcher(["hydra/launcher=basic"], multirun=True)[0] == Launcher(None)
    chosen = ["a=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "hydra.verbose=true"]
    assert split_launcher(chosen, multirun=True) == (Launcher(3), ["a=1", "hydra.verbose=true"])
    assert split_launcher(["hydra/launcher=joblib"], multirun=True)[0] == Launcher(cores)
    assert split_launcher(["+hydra/launcher=joblib", "++hydra.launcher.n_jobs=-1"], multirun=True)[0] == Launcher(cores)


def test_jobs_are_called_by_what_differs() -> None:
    words = [("env=x", "gamma=0.9", "seed=0"), ("env=x", "gamma=0.95", "seed=0"), ("env=x", "gamma=0.95", "seed=1")]
    assert job_names(words, [0, 0, 1]) == ["gamma=0.9 s0", "gamma=0.95 s0", "gamma=0.95 s1"]
    assert job_names(words[1:], [0, 1]) == ["env=x gamma=0.95 s0", "env=x gamma=0.95 s1"]
    stacked = [("env=x", "seeds=[0,1]"), ("env=x", "seeds=[2,3]")]
    assert job_names(stacked, [[0, 1], [2, 3]]) == ["env=x seeds=[0, 1]", "env=x seeds=[2, 3]"]
    assert [name_of_seed(name, 7) for name in ("env=x seeds=[2, 7]", "env=x s7")] == ["env=x s7", "env=x s7"]


# ---------------------------------------------------------------------------------------------------------- one by one


def test_a_sweep_says_how_many_runs_and_how_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["-m", "algorithm.gamma=0.9,0.95", *LAKE, f"outputs={tmp_path}"]
    assert main_command(line) == 0
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"sweep \w{8}: 2 runs, time unknown \(no earlier run to judge by\)", said[0])
    assert said[1] == "job 1 of 2 begins: algorithm.gamma=0.9 s0"
    assert re.fullmatch(
        r"job 1 of 2 finished in 0:\d\d, return \d\.\d: algorithm.gamma=0.9 s0; about 0:\d\d left", said[2]
    )
    assert re.fullmatch(r"sweep: 2 of 2 runs finished, in 0:\d\d", said[-1])
    assert {read_json(path)["name"] for path in tmp_path.glob("*/*/s0/run.json")} == {
        "algorithm.gamma=0.9 s0",
        "algorithm.gamma=0.95 s0",
    }
    line[1] = "algorithm.gamma=0.9,0.95,0.97"
    assert main_command(line) == 0
    shown = capsys.readouterr()
    assert re.match(
        r"sweep \w{8}: 3 runs, 2 finished already, about 0:\d\d \(by 2 earlier runs\)\njob 3 of 3 begins", shown.err
    )
    assert [text.split(":")[0] for text in shown.out.splitlines()] == [*["finished already"] * 2, "finished"]


def test_a_job_that_leaves_the_interpreter_or_has_a_bug_does_not_sink_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = experiment_run.build

    def fail(config: Any, *rest: Any) -> Any:
        if config["seed"] < 2:
            raise [SystemExit("left"), ZeroDivisionError("a bug")][config["seed"]]
        return build(config, *rest)

    monkeypatch.setattr(experiment_run, "build", fail)
    assert main_command(["-m", "seed=0,1,2", *LAKE, f"outputs={tmp_path}"]) == 1
    shown = capsys.readouterr()
    assert "in fail" in shown.err  # the traceback
    assert re.search(r"^  job 1  failed  .* s0  SystemExit: left\n  job 2  failed  .* s1  ZeroDivisionError: a bug$",
                     shown.err, re.MULTILINE)  # fmt: skip
    assert shown.out.count("finished:") == 1


def test_a_signal_stops_the_sweep_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = experiment_run.build
    line = ["-m", "seed=0,1", *LAKE, f"outputs={tmp_path}"]

    def stopped(config: Any, *rest: Any) -> Any:
        if config["seed"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return build(config, *rest)

    monkeypatch.setattr(experiment_run, "build", stopped)
    with pytest.raises(Interrupted, match="the sweep was stopped; the same command continues") as error:
        main_command(line)
    assert error.value.code == 75
    assert re.search(r"job 1  interrupted  .*saved at env_steps=.*\n  job 2  waiting", capsys.readouterr().err)
    monkeypatch.undo()
    assert main_command(line) == 0
    assert capsys.readouterr().out.count("finished:") == 2


def test_a_signal_between_two_jobs_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def ended_but_for_wandb(job: Any) -> None:
        begun.append(job)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(multirun, "run_one", ended_but_for_wandb)
    with pytest.raises(Interrupted, match="the sweep was stopped") as error:
        main_command(["-m", "seed=0,1", *LAKE, f"outputs={tmp_path}"])
    assert error.value.code == 130
    assert len(begun) == 1


def test_the_same_sweep_does_not_run_twice_at_once(tmp_path: Path) -> None:
    line = ["-m", "seed=0", *LAKE, f"outputs={tmp_path}"]
    assert main_command(line) == 0
    (folder,) = (tmp_path / ".multirun").iterdir()
    with locked(folder), pytest.raises(StorageError, match="is in use by process"):
        main_command(line)


# --------------------------------------------------------------------------------------------------------- side by side


def sweep(folder: Path, *words: str, faults: str = "") -> "subprocess.CompletedProcess[str]":
    """A command line in a process of its own, in the folder with the package."""
    environment = os.environ | {"FAULTS": faults}
    command = [sys.executable, "-m", "rlexp", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_jobs_with_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["-m", "seed=0,1", *write_package(tmp_path), "logger=local", "display=live"]
    line += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLEXP_CONF_DIR", "my_conf")  # put back afterwards: --config-dir sets it for the jobs
    monkeypatch.setenv("FAULTS", "kill:seed=1")
    assert main_command(line) == 128 + signal.SIGKILL
    shown = capsys.readouterr()
    assert ": 2 runs, 2 at once, time unknown" in shown.err
    assert re.search(r"^  job 2  failed  .* s1  killed by SIGKILL \(by a person, or", shown.err, re.MULTILINE)
    assert re.match(r"finished: final return .*/s0\n$", shown.out)
    (log,) = (tmp_path / "outputs" / ".multirun").glob("*/job_1.log")
    assert re.search(r"^ *\d+% +\d+ steps", log.read_text(), re.MULTILINE)  # plain lines: no terminal, no live table
    (killed,) = (tmp_path / "outputs").glob("*/*/s1")
    status = read_status(killed)
    assert (status["state"], status["exit_code"]) == ("failed", 137)
    assert read_json(killed / "run.json")["command"][:2] == ["rlexp", "seed=1"]


@pytest.mark.slow
def test_twelve_jobs_of_which_one_raises_one_is_killed_and_one_turns_non_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = "0.001,0.0003,0.0001"
    line = ["-m", *write_package(tmp_path), "seed=range(0,4)", f"optimizer.learning_rate={rates}"]
    line += ["logger.wandb.mode=offline", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    faulty = {"0.001 s3": "raise", "0.0003 s1": "kill", "0.0001 s2": "nan"}
    faults = [f"{fault}:optimizer.learning_rate={job[:-3]},seed={job[-1]}" for job, fault in faulty.items()]
    done = sweep(tmp_path, *line, faults=";".join(faults))
    outputs = tmp_path / "outputs"
    runs = {read_json(path)["name"]: path.parent for path in outputs.glob("*/*/s*/run.json")}
    names = {f"optimizer.learning_rate={rate} s{seed}" for rate in rates.split(",") for seed in range(4)}
    assert set(runs) == names
    assert done.stdout.count("finished:") == 9
    assert "sweep: 9 of 12 runs finished" in done.stderr
    told = dict(re.findall(r"^  job \d+ +failed +optimizer.learning_rate=(\S+ s\d) +(.*)$", done.stderr, re.MULTILINE))
    assert set(told) == set(faulty)
    assert "RuntimeError: the pole broke" in told["0.001 s3"]
    assert "killed by SIGKILL" in told["0.0003 s1"]
    assert "not finite" in told["0.0001 s2"]
    assert done.returncode == 137  # of the first in the order of the jobs: seed 1
    codes = {"raise": 3, "kill": 137, "nan": 4}
    for job, fault in faulty.items():
        stand = standing_of(runs[f"optimizer.learning_rate={job}"])
        assert (stand.state, stand.exit_code) == ("failed", codes[fault])

    check_wandb(runs, {f"optimizer.learning_rate={job}" for job in faulty}, groups=3)
    alone = run_alone(tmp_path, monkeypatch, "seed=2", "optimizer.learning_rate=0.0003")
    assert rows_of(alone) == rows_of(runs["optimizer.learning_rate=0.0003 s2"]) != []
    before = {name: (path / "status.json").stat().st_mtime_ns for name, path in runs.items()}

    again = sweep(tmp_path, *line)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished already:") == 9
    assert again.stdout.count("finished:") == 3
    begun = re.findall(r"^job \d+ of 12 begins: optimizer.learning_rate=(.*)$", again.stderr, re.MULTILINE)
    assert set(begun) == set(faulty)
    after = {name: (path / "status.json").stat().st_mtime_ns for name, path in runs.items()}
    assert {name.partition("=")[2] for name in names if before[name] != after[name]} == set(faulty)
    check_wandb(runs, set(), groups=3)
    assert status_command([str(outputs)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "12 runs: 12 finished"


def run_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """The same run in this process, without a sweep."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RLEXP_CONF_DIR", str(folder / "my_conf"))
    return run_in(folder / "alone", *OVERRIDES, "logger=local", "display=none", *overrides)


def check_wandb(runs: dict[str, Path], failed: set[str], groups: int) -> None:
    """One W&B run for each, as its own reader shows them: group, name, configuration, rows and how it ended."""
    for folder in runs.values():
        wait_for(lambda folder=folder: mirrored(folder), seconds=120)
    folders = wandb_folders(next(iter(runs.values())).parents[2])
    seen = {run["run"]["display_name"]: run for run in map(inspect, folders)}
    assert len(folders) == len(seen) == len(runs)
    assert set(seen) == set(runs)
    assert len({run["run"]["run_id"] for run in seen.values()}) == len(runs)
    assert len({run["run"]["run_group"] for run in seen.values()}) == groups
    for name, folder in runs.items():
        run, config = seen[name]["run"], seen[name]["run"]["config"]["update"]
        assert run["run_group"] == folder.parent.name
        assert name == f"optimizer.learning_rate={config['optimizer']['learning_rate']} s{config['seed']}"
        assert (seen[name]["exits"] != [0]) == (name in failed)
        assert [row["seq"] for row in seen[name]["rows"]] == list(range(len(seen[name]["rows"])))


@pytest.mark.slow
def test_jobs_of_one_process_have_wandb_runs_of_their_own_also_after_one_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = experiment_run.build

    def as_if_alone(config: Any, *rest: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["rlexp", f"seed={config['seed']}"])
        return build(config, *rest)

    rates = "optimizer.learning_rate=0.001,0.0001"
    line = ["-m", "seed=0,1", rates, *write_package(tmp_path), "logger.wandb.mode=offline", "display=none"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLEXP_CONF_DIR", "my_conf")
    monkeypatch.setenv("FAULTS", "raise:seed=0")
    monkeypatch.setattr(experiment_run, "build", as_if_alone)
    assert main_command(line) == 3
    runs = {read_json(path)["name"]: path.parent for path in (tmp_path / "outputs").glob("*/*/s*/run.json")}
    failed = {"optimizer.learning_rate=0.001 s0", "optimizer.learning_rate=0.0001 s0"}
    assert set(runs) == failed | {name.replace("s0", "s1") for name in failed}
    check_wandb(runs, failed, groups=2)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_stopped_sweep_leaves_no_job_running_and_each_has_saved(number: int, code: int, tmp_path: Path) -> None:
    words = [*write_package(tmp_path), "logger=local", "total_env_steps=10_000_000", "evaluation=none"]
    words = [word for word in words if not word.startswith("evaluation.")]
    command = [sys.executable, "-m", "rlexp", "-m", "seed=0,1,2", *words]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "logger.interval=1000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    outputs = tmp_path / "outputs"
    wait_for(lambda: len(list(outputs.glob("*/*/s*/rows.jsonl"))) == 2, seconds=120)
    runs = [path.parent for path in outputs.glob("*/*/s*/rows.jsonl")]
    wait_for(lambda: all(standing_of(run).env_steps for run in runs))
    assert [standing_of(run).state for run in runs] == ["running", "running"]
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    try:
        wait_for(lambda: not any(is_locked(run) for run in runs))
    finally:  # nothing is left at work for others to find
        for run in filter(is_locked, runs):
            os.kill(int((run / "lock").read_text().split()[1]), signal.SIGKILL)
    for run in runs:
        stand = standing_of(run)
        assert (stand.state, stand.exit_code) == ("interrupted", 75 if number == signal.SIGKILL else code)
        assert list((run / "checkpoints").glob("[0-9]*"))
    assert number == signal.SIGKILL or "the sweep was stopped; the same command continues" in said
    assert len(list(outputs.glob("*/*/s*"))) == 2
