"""Choices are composed once while their files stay as they are; Hydra's own groups only where they are asked for."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlexp.errors import ConfigError
from rlexp.experiment import choices
from rlexp.experiment.compose import CONFIG_DIR_VARIABLE, compose_jobs, conf_dir, use_config_dir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a file `env/mine.yaml`, CartPole of 50 steps."""
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, str(tmp_path))
    use_config_dir(None)
    write_env(tmp_path, 50)
    return tmp_path


def write_env(folder: Path, time_limit: int) -> None:
    text = yaml.safe_load((conf_dir() / "env" / "cartpole.yaml").read_text())
    (folder / "env").mkdir(exist_ok=True)
    (folder / "env" / "mine.yaml").write_text(yaml.safe_dump({**text, "time_limit": time_limit}))


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What Hydra was asked to compose."""
    asked: list[tuple[str, ...]] = []
    compose = choices._compose

    def counting(lines: Any) -> Any:
        asked.append(tuple(lines))
        return compose(lines)

    monkeypatch.setattr(choices, "_compose", counting)
    return asked


def configs(*line: str, multirun: bool = False) -> list[dict[str, Any]]:
    return [job.config for job in compose_jobs(line, multirun=multirun)]


def test_values_are_set_on_a_copy(folder: Path, composed: list[tuple[str, ...]]) -> None:
    line = ["env=mine", "seed=1,2", "algorithm.gamma=0.5,0.6", "network.hidden=[8]"]
    found = configs(*line, multirun=True)
    (plain,) = configs("env=mine")
    assert composed == [("env=mine",)]
    assert [(config["seed"], config["algorithm"]["gamma"]) for config in found] == [
        (1, 0.5), (1, 0.6), (2, 0.5), (2, 0.6),
    ]  # fmt: skip
    assert all(config["network"]["hidden"] == [8] for config in found)
    assert (plain["seed"], plain["network"]["hidden"]) == (0, [64, 64])
    (removed,) = configs("env=mine", "~network.hidden")
    assert "hidden" not in removed["network"]
    assert "hidden" in configs("env=mine")[0]["network"]


def test_a_file_that_changed_is_read_again(folder: Path, composed: list[tuple[str, ...]]) -> None:
    assert configs("env=mine", "seed=3")[0]["env"]["time_limit"] == 50
    write_env(folder, 60)
    assert configs("env=mine", "seed=3")[0]["env"]["time_limit"] == 60
    assert len(composed) == 2


def test_a_file_that_comes_before_another_is_seen(folder: Path, composed: list[tuple[str, ...]]) -> None:
    assert configs("env=mine")[0]["network"]["hidden"] == [64, 64]
    (folder / "network").mkdir()
    text = (conf_dir() / "network" / "mlp.yaml").read_text()
    (folder / "network" / "mlp.yaml").write_text(text.replace("[64, 64]", "[5]"))
    assert configs("env=mine")[0]["network"]["hidden"] == [5]
    assert len(composed) == 2
    (folder / "network" / "mlp.yaml").unlink()
    assert configs("env=mine")[0]["network"]["hidden"] == [64, 64]


def test_a_group_that_was_added_is_known(folder: Path) -> None:
    assert configs("env=mine", "extra=one")[0]["extra"] == "one"
    (folder / "extra").mkdir()
    (folder / "extra" / "one.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match="No match in the defaults list"):  # a choice now, that nothing lists
        configs("env=mine", "extra=one")


@pytest.mark.parametrize("line", ["hydra/job_logging=none", "hydra.verbose=true", "experiment=quiet"])
def test_what_steers_hydra_is_taken_as_before(line: str, folder: Path) -> None:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "quiet.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/job_logging: none\n"
    )
    assert configs(line) == configs()
