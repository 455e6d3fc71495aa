"""Command lines: what is refused, how, and what is let through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from config_faults import OTHERS, PAIRS, VALID, Fault, complaint, faults, refuse

from rlexp.cli.common import guarded
from rlexp.cli.main import command as main_command
from rlexp.errors import ConfigError
from rlexp.experiment.check import check
from rlexp.experiment.compose import CONFIG_DIR_VARIABLE, compose_jobs, conf_dir
from rlexp.experiment.identity import config_hash, human_name
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.rules import RULES
from rlexp.experiment.targets import resolve
from tests.conftest import env_choices, preset_choices

ALL = faults()


@pytest.mark.slow
def test_every_malformed_command_line_is_refused() -> None:
    assert [wrong for fault in ALL if (wrong := complaint(fault, refuse(fault.arguments)))] == []


def test_a_sample_of_malformed_command_lines_is_refused() -> None:
    generated = [fault for fault in ALL if not fault.kind.startswith(("rule", "other"))][::25]
    assert {fault.kind for fault in generated} >= {"typing error", "wrong type", "out of range"}
    assert [wrong for fault in generated if (wrong := complaint(fault, refuse(fault.arguments)))] == []


@pytest.mark.parametrize("rule", [rule.__name__ for rule in RULES])
def test_each_pair_rule_refuses_by_its_name(rule: str) -> None:
    for line in PAIRS[rule]:
        fault = Fault(f"rule {rule}", line)
        assert complaint(fault, refuse(fault.arguments)) is None


@pytest.mark.parametrize("line", OTHERS, ids=" ".join)
def test_other_faults_are_refused(line: list[str]) -> None:
    assert complaint(Fault("other", line), refuse(line)) is None


@pytest.mark.parametrize("line", VALID, ids=lambda line: " ".join(line) or "default")
def test_valid_command_lines_pass(line: list[str]) -> None:
    assert checked_jobs(line, multirun=False)


def test_a_refused_command_leaves_nothing_and_takes_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "rlexp", "algorithm.gama=0.9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    code = guarded(lambda: main_command(["algorithm=dqn", "env=pendulum"]))
    shown = capsys.readouterr()
    assert (done.returncode, code) == (2, 2)
    assert (done.stdout, shown.out) == ("", "")
    assert (done.stderr.count("\n"), shown.err.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("algorithm.gama=1", "gamma"),
        ("+algorithm.gamm=1", "gamma"),
        ("++experience.rollout_lenght=1", "rollout_length"),
        ("algoritm=dqn", "algorithm"),
        ("algorithm=pp", "ppo"),
        ("env=cartpol", "cartpole"),
        ("network.activation=tanhh", "tanh"),
        ("optimizer.networks.critc.learning_rate=1", "critic"),
    ],
)
def test_the_nearest_known_word_is_suggested(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        checked_jobs([typed], multirun=False)


# ------------------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.open",
        "torch.nn.functional.torch.os.mkdir",
        "torch.optim.adam.torch.save",
        "torch.load",
        "rlexp.storage.remove",
        "rlexp.algorithms.ppo.torch.os.system",
        "rlexp.functional.advantages.torch",
        "rlexp.algorithms",
        "rlexp.algorithms.ppo.PPO.__init__.__globals__",
        "rlexp.algorithms.nonsense",
        "torch.optimistic.Adam",
    ],
)
def test_targets_outside_the_allowed_packages_are_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        resolve(path, "algorithm")


def test_a_plugin_is_allowed_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from rlexp.networks.torso import LinearFeatures, features\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    takes: ClassVar[frozenset] = frozenset({'vector'})\n"
        "    def __call__(self, observation):\n"
        "        return features(observation)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = ["++network._target_=my_networks.Mine", "~network.hidden", "~network.activation", "~network.layer_norm"]
    with pytest.raises(ConfigError, match="plugins="):
        checked_jobs(line, multirun=False)
    (job,) = checked_jobs([*line, "plugins=[my_networks]"], multirun=False)
    with pytest.raises(ConfigError, match="plugins="):  # a saved file may not name its own plugins
        check(job.config, trusted_plugins=[])
    assert check(job.config, trusted_plugins=["my_networks"])


# ------------------------------------------------------------------------------------------------------ own folders


def test_a_folder_of_ones_own_adds_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")  # and put back: to name a folder sets it
    (tmp_path / "env").mkdir()
    (tmp_path / "algorithm").mkdir()
    mine = yaml.safe_load((conf_dir() / "env" / "cartpole.yaml").read_text())
    (tmp_path / "env" / "short_cartpole.yaml").write_text(yaml.safe_dump({**mine, "time_limit": 50}))
    text = (conf_dir() / "algorithm" / "ppo.yaml").read_text()
    (tmp_path / "algorithm" / "ppo.yaml").write_text(text.replace("gamma: 0.98", "gamma: 0.5"))
    (job,) = checked_jobs(["env=short_cartpole"], multirun=False, config_dir=str(tmp_path))
    assert (job.spec.time_limit, job.config["algorithm"]["gamma"]) == (50, 0.5)


@pytest.mark.parametrize(
    ("wrong", "instead"),
    [
        ("tags: ['${oc.env:HOME}']", 'on the command line, where the shell knows it: tags="$HOME"'),
        ("outputs: /x/${oc.env:NAME,default}", 'on the command line, where the shell knows it: outputs="$NAME"'),
        ("tags: ['${oc.env:MY_TOKEN}']", "write <MY_TOKEN> for the secret of this name"),
        ("device: ${now:%Y}", "give the value itself, device=... on the command line"),
        ("plugins: [a_package, b.c]", "give plugins=[a_package,b.c] on the command line and take them out of the file"),
        ("plugins: ['a b']", "give plugins=[...] on the command line"),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_what_to_do_instead(
    wrong: str, instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{wrong}\n")
    with pytest.raises(ConfigError) as refusal:
        checked_jobs(["experiment=mine"], multirun=False, config_dir=str(tmp_path))
    assert instead in str(refusal.value)


def test_a_file_may_name_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")
    monkeypatch.setenv("MY_TOKEN", "abcdefgh-12345")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntags: [x <MY_TOKEN>, <MY_TOKEN>]\n")
    (job,) = checked_jobs(["experiment=mine"], multirun=False, config_dir=str(tmp_path))
    assert job.config["tags"] == ["x abcdefgh-12345", "abcdefgh-12345"]


# ------------------------------------------------------------------------------------------------------ identity


def test_the_hash_is_of_the_experiment() -> None:
    def hashed(*line: str) -> str:
        return config_hash(checked_jobs(list(line), multirun=False)[0].config)

    default = hashed()
    for same in (
        "seed=7",
        "evaluation=none",
        "logger=local",
        "checkpoint.keep=5",
        "execution.vector=async",
        "display=none",
        "tags=[a]",
    ):
        assert hashed(same) == default
    for other in ("algorithm.gamma=0.9", "total_env_steps=50000", "network.hidden=[32]", "env.time_limit=400"):
        assert hashed(other) != default
    assert hashed("optimizer.learning_rate=1e-3") == default
    assert hashed("optimizer.learning_rate=0.001", "total_env_steps=1e5") == default


def test_the_name_says_what_was_changed() -> None:
    assert human_name(("algorithm=dqn", "seed=3", "display=none", "env=acrobot"), 3) == "algorithm=dqn env=acrobot s3"
    assert human_name((), 0) == "default s0"


def test_a_sweep_is_every_combination() -> None:
    jobs = compose_jobs(["seed=0,1", "algorithm=ppo,dqn", "total_env_steps=50_000"], multirun=True)
    assert len(jobs) == 4
    assert {(job.config["seed"], job.config["algorithm"]["_target_"].split(".")[-1]) for job in jobs} == {
        (0, "PPO"),
        (0, "DQN"),
        (1, "PPO"),
        (1, "DQN"),
    }
    assert all("total_env_steps=50000" in job.overrides for job in jobs)


IMAGES = [
    "env.id=Image-v0",
    "env.declared={of: Image-v0, observation: {kind: box, shape: [8, 8, 1]}, action: {kind: discrete, n: 2}, "
    "time_limit: 10, has_model: false}",
]


def test_every_file_of_the_configuration_composes_checks_and_builds() -> None:
    """Each choice of each group, alone or with what it needs."""
    needs = {
        "experience/replay": ["algorithm=dqn"],
        "experience/sweep": ["algorithm=value_iteration", "env=frozen_lake"],
        "experience/episodes": ["algorithm=reinforce"],
        "baseline/value": ["algorithm=reinforce"],
        "exploration/epsilon_greedy": ["algorithm=dqn"],
        "network/cnn": IMAGES,
        "network/table": ["env=frozen_lake"],
        "algorithm/value_iteration": ["env=taxi"],
        "algorithm/sac": ["env=pendulum"],
        "network/none": ["algorithm=value_iteration", "env=taxi"],
        "optimizer/none": ["algorithm=value_iteration", "env=taxi"],
        "estimator/none": ["algorithm=value_iteration", "env=taxi"],
    }
    missing = {f"env/{choice.values[0]}" for choice in env_choices() if choice.marks[0].args[0]}
    missing |= {f"experiment/{choice.values[0]}" for choice in preset_choices() if choice.marks[0].args[0]}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        choice = f"{path.parent.name}/{path.stem}"
        line = [*needs.get(choice, []), f"{path.parent.name}={path.stem}"]
        assert choice in missing or checked_jobs(line, multirun=False), choice


@pytest.mark.parametrize(
    ("line", "module", "extra"),
    [
        (["env=lunar_lander"], "Box2D", "box2d"),
        (["env=half_cheetah"], "mujoco", "mujoco"),
        (["env.id=Hopper-v5"], "mujoco", "mujoco"),
        (["env.id=BipedalWalker-v3", "env.kwargs={hardcore: true}"], "Box2D", "box2d"),
    ],
)
def test_a_missing_simulator_is_one_line_with_its_extra(
    line: list[str], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    answer = refuse(line)
    assert complaint(Fault("other", line), answer) is None
    assert f"pip install 'rlexp[{extra}]'" in answer.stderr


def test_an_unknown_user_folder_is_refused() -> None:
    assert os.environ.get("RLEXP_CONF_DIR") is None
    with pytest.raises(ConfigError, match="does not exist"):
        checked_jobs([], multirun=False, config_dir="/nonexistent")
