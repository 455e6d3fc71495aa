"""Whole runs: what they log, what must not change them, what they leave."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from make_docs import DOCS, metrics_page, rules_page

from rlexp.cli.check import command as check_command
from rlexp.cli.evaluate import command as evaluate_command
from rlexp.cli.main import command as main_command
from rlexp.cli.sync import command as sync_command
from rlexp.envs.cartpole import CartPoleVector
from rlexp.envs.sync import SyncVector
from rlexp.errors import ConfigError, EnvironmentFailure, NonFiniteError, ResourceError, StorageError
from rlexp.experiment.build import NUMPY_FROM, build, make_vector
from rlexp.experiment.compose import conf_dir
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.metrics import TABLE, WITH_CRITIC, required_of
from rlexp.experiment.saved import evaluate_saved
from rlexp.experiment.status import read_status
from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.storage.rows import read_rows
from tests.conftest import preset_choices
from tests.experiment.support import TINY, rows_of, run_in

ALGORITHMS = {
    "PPO": ["algorithm=ppo", "experience.rollout_length=10"],
    "DQN": ["algorithm=dqn", "experience.learning_starts=100"],
    "A2C": ["algorithm=a2c", "algorithm.shared_encoder=true"],
    "REINFORCE": ["algorithm=reinforce", "baseline=none", "experience.num_episodes=2", "experience.num_envs=2"],
    WITH_CRITIC: ["algorithm=reinforce", "baseline=value"],
    "SAC": ["algorithm=sac", "env=pendulum", "network.hidden=[8]", "experience.learning_starts=100"],
    "ValueIteration": ["algorithm=value_iteration", "env=frozen_lake", "total_env_steps=300"],
}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, no_compiler: None) -> Callable[[str], Path]:
    """The folder of an algorithm's small run, made once; not to be changed."""
    return functools.cache(lambda name: run_in(tmp_path_factory.mktemp("small"), *TINY, *ALGORITHMS[name]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_promised_metric_is_logged_and_finite(algorithm: str, small_run: Callable[[str], Path]) -> None:
    logged: dict[str, Any] = {}
    for row in read_rows(small_run(algorithm) / "rows.jsonl"):
        logged |= row
    promised = required_of(algorithm)
    assert [name for name in promised if name not in logged] == []
    assert [name for name in promised if not isinstance(logged[name], (int, float))] == []  # "NaN" is text
    known = {metric.name for metric in TABLE}
    extra = {"seq", "kind", "env_steps", "updates"}
    assert [n for n in logged if n not in known | extra and not n.startswith(("final/", "best/"))] == []


def test_the_table_has_a_line_for_every_recommended_diagnostic() -> None:
    names = {metric.name for metric in TABLE}
    assert len(names) == len(TABLE)
    recommended = {
        "value/max_q",
        "value/td_error",
        "optimizer/grad_norm_actor",
        "policy/entropy",
        "episode/return",
        "episode/reward_per_step",
        "episode/length",
        "time/fps",
    }
    assert recommended <= names


def test_the_pages_made_from_the_code_are_fresh() -> None:
    assert (DOCS / "metrics.md").read_text() == metrics_page()
    assert (DOCS / "rules.md").read_text() == rules_page()


def test_scaled_observations_are_scaled_alike_when_evaluated_later(tmp_path: Path) -> None:
    """The last short evaluation is of the final weights: a fresh process of evaluation must see the same moments."""
    line = [*TINY, *ALGORITHMS["PPO"], "env=pendulum", "normalization=observations_and_rewards"]
    folder = run_in(tmp_path, *line)
    for path in (folder / "evaluations").glob("*.json"):
        path.unlink()
    last = rows_of(folder, "eval")[-1]
    assert last["env_steps"] == 800
    assert evaluate_saved(folder, "final", 2, None).mean == last["eval/return"]
    tree = load_tree(folder / "weights" / "final")
    assert tree["weights"]["normalization"].shape == (2, 3)
    tree["weights"]["normalization"][0] += 1
    save_tree(folder / "weights" / "final", tree)
    assert evaluate_saved(folder, "final", 2, None).mean != last["eval/return"]
    del tree["weights"]["normalization"]
    save_tree(folder / "weights" / "final", tree)
    with pytest.raises(StorageError, match="normalization: missing from the saved weights"):
        evaluate_saved(folder, "final", 2, None)


@pytest.mark.parametrize("algorithm", ["PPO", "DQN", "REINFORCE", "SAC"])
@pytest.mark.parametrize("other", [["evaluation=none"], ["display=plain"], ["evaluation.policy=sampled"]], ids=" ".join)
def test_what_must_not_change_a_training_row(
    algorithm: str, other: list[str], small_run: Callable[[str], Path], tmp_path: Path
) -> None:
    changed = [option for option in TINY if not other[0].startswith("evaluation=none") or "evaluation." not in option]
    varied = run_in(tmp_path, *changed, *ALGORITHMS[algorithm], *other)
    rows = rows_of(small_run(algorithm), "train")
    assert len(rows) > 5
    assert rows == rows_of(varied, "train")


@pytest.mark.parametrize(
    ("algorithm", "seeds"), [("PPO", None), ("REINFORCE", None), ("REINFORCE", [0, 1])], ids=lambda x: str(x)
)
def test_vectors_do_not_change_a_row(algorithm: str, seeds: list[int] | None, tmp_path: Path) -> None:
    """Training and evaluation, with a time limit below the environment's own."""
    line = [*TINY, *ALGORITHMS[algorithm], "total_env_steps=240", "env.time_limit=8"]
    line += ["logger.interval=2", "evaluation.interval=24", "checkpoint.interval=240"]
    line += [] if seeds is None else [f"seeds={seeds}".replace(" ", "")]
    choices = (["sync"], ["numpy"], ["async", "execution.workers=2"])
    folders = [run_in(tmp_path / c[0], *line, f"execution.vector={c[0]}", *c[1:]) for c in choices]
    rows = [rows_of(folder if seeds is None else folder / "s1") for folder in folders]
    assert max(row.get("eval/length", 0) for row in rows[0]) == 8
    assert len(rows[0]) > 5
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize(
    ("line", "num_envs", "kind"),
    [
        ([], NUMPY_FROM, CartPoleVector),
        ([], NUMPY_FROM - 1, SyncVector),
        (["execution.vector=numpy"], 1, CartPoleVector),
        (["execution.vector=sync"], 8, SyncVector),
        (["execution.vector=async"], 8, SyncVector),  # of an evaluation: training's is another
        (["env=acrobot"], 8, SyncVector),
        (["env.kwargs={sutton_barto_reward: true}"], 8, SyncVector),
    ],
)
def test_the_vector_of_a_configuration(line: list[str], num_envs: int, kind: type) -> None:
    (job,) = checked_jobs(line, multirun=False)
    assert type(make_vector(job.config, job.spec, num_envs, lambda i, k: 0)) is kind


def test_the_same_seed_gives_the_same_rows_whatever_the_global_generators_hold(
    small_run: Callable[[str], Path], tmp_path: Path
) -> None:
    first = small_run("PPO")
    torch.default_generator.manual_seed(torch.initial_seed() + 1)  # torch.manual_seed imports the compiler
    second = run_in(tmp_path, *TINY, *ALGORITHMS["PPO"])
    third = run_in(tmp_path, *TINY, *ALGORITHMS["PPO"], "seed=1")
    assert rows_of(first) == rows_of(second)
    assert rows_of(first) != rows_of(third)


# ---------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_is_paired_and_cached(tmp_path: Path) -> None:
    first = run_in(tmp_path / "a", *TINY, *ALGORITHMS["PPO"])
    second = run_in(tmp_path / "b", *TINY, *ALGORITHMS["DQN"], "seed=5", "algorithm.gamma=0.9")
    results = [evaluate_saved(folder, "final", 6, None) for folder in (first, second)]
    assert results[0].seeds == results[1].seeds
    assert len(set(results[0].seeds)) == 6

    files = sorted((first / "evaluations").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    again = evaluate_saved(first, "final", 6, None)
    assert again == results[0]
    assert [file.stat().st_mtime_ns for file in files] == before
    assert evaluate_saved(first, "final", 4, None).returns == results[0].returns[:4]
    assert evaluate_saved(first, "final", 8, None).returns[:6] == results[0].returns
    assert len(evaluate_saved(first, "final", 3, "sampled").returns) == 3
    status = read_status(first)
    assert set(status["results"]) == {"final", "best"}
    assert status["results"]["final"]["return"] == pytest.approx(evaluate_saved(first, "final", 3, None).mean)


def test_the_cache_is_what_is_read(tmp_path: Path) -> None:
    """A changed file changes the answer: nothing is measured twice."""
    folder = run_in(tmp_path, *TINY, *ALGORITHMS["ValueIteration"])
    for file in (folder / "evaluations").iterdir():
        held = json.loads(file.read_text())
        held["episodes"]["return"] = [42.0 for _ in held["episodes"]["return"]]
        file.write_text(json.dumps(held))
    assert evaluate_saved(folder, "final", 3, None).mean == 42.0
    assert evaluate_saved(folder, "final", 30, None).mean != 42.0


# ---------------------------------------------------------------------------------------------------- failures


def test_diverging_numbers_end_the_run_with_code_4_and_keep_the_last_checkpoint(tmp_path: Path) -> None:
    line = [*TINY, *ALGORITHMS["DQN"], "optimizer.learning_rate=1e25", "optimizer.max_grad_norm=null"]
    line += ["algorithm.huber_delta=1e30", "checkpoint.interval=60", "logger.interval=60"]
    with pytest.raises(NonFiniteError, match="env_steps="):
        run_in(tmp_path, *line)
    (folder,) = tmp_path.glob("*/*/s0")
    assert read_status(folder)["exit_code"] == 4
    assert list((folder / "checkpoints").glob("[0-9]*"))


def test_an_environment_that_raises_ends_the_run_with_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    def fail(self: Any, action: int) -> None:
        raise RuntimeError("the pole broke")

    monkeypatch.setattr(CartPoleEnv, "step", fail)
    with pytest.raises(EnvironmentFailure, match=r"the pole broke; environment 0, episode seed \d+, step 0"):
        run_in(tmp_path, *TINY, *ALGORITHMS["PPO"], "execution.vector=sync")
    (folder,) = tmp_path.glob("*/*/s0")
    assert read_status(folder)["exit_code"] == 3


# ---------------------------------------------------------------------------------------------------- commands


def test_a_sweep_runs_each_job_and_recognises_finished_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["-m", "seed=0,1,2", *TINY, *ALGORITHMS["ValueIteration"][:2], f"outputs={tmp_path}"]
    for said in ("finished", "finished already"):
        assert main_command(line) == 0
        assert [text.split(":")[0] for text in capsys.readouterr().out.splitlines()] == [said] * 3
    names = {read_json(path)["name"] for path in tmp_path.glob("*/*/s*/run.json")}
    assert {name.rsplit(" ", 1)[1] for name in names} == {"s0", "s1", "s2"}


def test_a_failing_job_does_not_sink_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_seed_1(config: Any, *rest: Any) -> Any:
        if config["seed"] == 1:
            raise EnvironmentFailure("the lake thawed")
        return build(config, *rest)

    monkeypatch.setattr("rlexp.experiment.run.build", fail_for_seed_1)
    line = ["-m", "seed=0,1,2", *TINY, *ALGORITHMS["ValueIteration"][:2], f"outputs={tmp_path}"]
    assert main_command(line) == 3
    shown = capsys.readouterr()
    assert shown.out.count("finished:") == 2
    assert re.search(r"^  job 2  failed  .* s1  the lake thawed$", shown.err, re.MULTILINE)
    monkeypatch.undo()
    assert main_command(line) == 0
    assert capsys.readouterr().out.count("finished already:") == 2


def test_check_and_evaluate_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*TINY, *ALGORITHMS["ValueIteration"][:2], f"outputs={tmp_path}"]
    assert check_command(line) == 0
    assert capsys.readouterr().out.startswith("ok: ")
    assert list(tmp_path.iterdir()) == []
    assert main_command(line) == 0
    (folder,) = tmp_path.glob("*/*/s0")
    capsys.readouterr()
    assert evaluate_command([str(folder), "--episodes", "7"]) == 0
    assert "over 7 episodes" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        evaluate_command([str(tmp_path)])


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (evaluate_command, [], "the following arguments are required: run; see rlexp-evaluate --help"),
        (
            evaluate_command,
            ["r", "--episodes", "0"],
            "--episodes: 0 is not a positive whole number; see rlexp-evaluate",
        ),
        (evaluate_command, ["r", "--episodes", "many"], "--episodes: many is not a positive whole number"),
        (sync_command, ["r", "--mode", "on"], "--mode: invalid choice: 'on'"),
        (main_command, ["--cfg", "hydra"], "invalid choice: 'hydra'"),
    ],
)
def test_wrong_arguments_are_one_line(command, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        command(arguments)


def test_help_and_composed_configuration_are_shown() -> None:
    assert "rlexp algorithm=dqn" in command("rlexp", "--help").stdout
    shown = command("rlexp", "--cfg", "job", "algorithm=dqn")
    assert "rlexp.algorithms.dqn.DQN" in shown.stdout
    assert (conf_dir() / "config.yaml").is_file()


def command(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    code = f"from {'rlexp.cli.main' if module == 'rlexp' else module} import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


SHORTER = {
    "dqn_cartpole": ["total_env_steps=1500"],  # 125 updates after each 250 steps from 1,000 on
    "sac_pendulum": ["total_env_steps=1100"],  # an update of 2 x 256 at every step after 1,000
}


@pytest.mark.parametrize("experiment", preset_choices())
def test_every_preset_runs_under_debug(experiment: str, tmp_path: Path) -> None:
    line = [f"experiment={experiment}", "debug=tiny", "logger=local", "display=none", "evaluation.num_envs=2"]
    line += ["evaluation.interval=1000", "evaluation.final_episodes=2"]  # a simulator's episodes are 1,000 steps long
    folder = run_in(tmp_path, *line, *SHORTER.get(experiment, []))
    assert read_status(folder)["state"] == "finished"
    assert rows_of(folder, "train")[-1]["updates"] >= 2


def test_a_run_without_evaluation_can_be_evaluated_later(tmp_path: Path) -> None:
    line = [option for option in TINY if not option.startswith("evaluation.")]
    folder = run_in(tmp_path, *line, *ALGORITHMS["ValueIteration"], "evaluation=none")
    assert len(evaluate_saved(folder, "final", 5, None).returns) == 5


@pytest.mark.parametrize("vector", ["auto", "async"])
def test_an_environment_of_a_users_package_runs(vector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in workers, which must import the package themselves."""
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control.cartpole import CartPoleEnv\n"
        "gymnasium.register('Mine-v0', entry_point=CartPoleEnv, max_episode_steps=20)\n"
    )
    monkeypatch.chdir(tmp_path)
    line = [*TINY, *ALGORITHMS["PPO"], "env.id=Mine-v0", "plugins=[my_envs]", f"execution.vector={vector}"]
    folder = run_in(tmp_path / "outputs", *line)
    assert max(row["episode/length"] for row in rows_of(folder, "train") if "episode/length" in row) <= 20


def test_memory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    line = [*TINY, *ALGORITHMS["DQN"], "experience.capacity=1000000000000"]
    with pytest.raises(ResourceError, match=r"experience\.capacity"):
        run_in(tmp_path, *line)
