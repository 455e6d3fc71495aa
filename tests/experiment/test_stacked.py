"""Several seeds in one process: each has the rows, weights and evaluations that it has alone."""

from pathlib import Path

import pytest
import torch

from rlexp.errors import ConfigError
from rlexp.experiment.jobs import checked_jobs
from rlexp.storage import load_tree, read_json
from tests.experiment.support import TINY, rows_of, run_in

SEEDS = [3, 0, 7]
CASES = {
    "ppo": ["algorithm=ppo", "experience.rollout_length=50", "experience.num_envs=4", "algorithm.num_epochs=2"],
    "ppo, target_kl": ["algorithm=ppo", "experience.rollout_length=20", "algorithm.target_kl=0.001"],
    "dqn": ["algorithm=dqn", "experience.learning_starts=200", "network.hidden=[32,32]"],
    "dqn, n steps": [
        "algorithm=dqn", "experience.learning_starts=200", "experience.num_envs=2", "estimator=n_step",
        "experience.sequence_length=5", "network.layer_norm=true",
    ],
}  # fmt: skip


def stacked(tmp_path: Path, *overrides: str, seeds: list[int] = SEEDS) -> Path:
    return run_in(tmp_path, *TINY, f"seeds={seeds}".replace(" ", ""), *overrides)


@pytest.mark.parametrize("case", CASES)
def test_each_seed_equals_itself_alone(case: str, tmp_path: Path) -> None:
    together = stacked(tmp_path, "env=cartpole", *CASES[case])
    for seed in SEEDS:
        single = run_in(tmp_path, *TINY, f"seed={seed}", "env=cartpole", *CASES[case])
        folder = together / f"s{seed}"
        assert len(rows_of(folder)) >= 8
        assert rows_of(folder) == rows_of(single)
        for which in ("final", "best"):
            one, other = (load_tree(run / "weights" / which) for run in (folder, single))
            assert one["env_steps"] == other["env_steps"]
            assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in other["weights"])
        assert read_json(folder / "status.json") == read_json(single / "status.json")
        one, other = (read_json(run / "run.json") for run in (folder, single))
        assert (one["seed"], one["group"], one["name"]) == (seed, other["group"], other["name"])
        assert one["wandb_id"] != other["wandb_id"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["seeds=[]"], "one or more different seeds"),
        (["seeds=[1,1]"], "one or more different seeds"),
        (["seeds=[0,1]", "seed=3"], "exclude each other"),
        (["seeds=[0,-1]"], "at least 0"),
        (["seeds=3"], "must be a list"),
        (["seeds=[0,1]", "algorithm=value_iteration", "env=taxi"], "seeds_of_a_sweep"),
    ],
)
def test_seeds_that_cannot_be_trained_together_are_refused(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_jobs(line, multirun=False)


def test_other_seeds_have_another_folder(tmp_path: Path) -> None:
    first = stacked(tmp_path, *CASES["ppo"], seeds=[0, 1, 2])
    others = [stacked(tmp_path, *CASES["ppo"], seeds=seeds) for seeds in ([0, 2, 3], [0, 1, 3])]
    assert first.name == "seeds_0-2_3"
    assert len({first, *others}) == 3
    assert {folder.name.rpartition("_")[0] for folder in others} == {"seeds_0-3_3"}
    assert stacked(tmp_path, *CASES["ppo"], seeds=[0, 1, 2]) == first
