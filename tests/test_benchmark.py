"""scripts/benchmark.py: the peers do the same work, and its figures are what they say."""

import functools
from typing import Any

import benchmark
import pytest
from benchmark_sweep import rlexp_words
from benchmark_workloads import WORKLOADS, Workload

from rlexp.experiment.check import Checked
from rlexp.experiment.jobs import checked_jobs


def composed(workload: Workload) -> Checked:
    if "half_cheetah" in " ".join(workload.rlexp):
        pytest.importorskip("mujoco")
    return checked_jobs([*workload.rlexp, f"total_env_steps={workload.steps}"], multirun=False)[0]


WORDS = {
    "learning_rate": ("optimizer.learning_rate", 1),
    "max_grad_norm": ("optimizer.max_grad_norm", 1),
    "gamma": ("algorithm.gamma", 1),
    "n_epochs": ("algorithm.num_epochs", 1),
    "clip_range": ("algorithm.clip_ratio", 1),
    "ent_coef": ("algorithm.entropy_coef", 1),
    "vf_coef": ("algorithm.value_coef", 2),  # of half the mean square
    "rms_prop_eps": ("optimizer.rule.eps", 1),
    "buffer_size": ("experience.capacity", 1),
    "batch_size": ("experience.batch_size", 1),
    "learning_starts": ("experience.learning_starts", 1),
    "train_freq": ("experience.collection_steps", 1),
    "gradient_steps": ("experience.updates_per_collection", 1),
    "tau": ("algorithm.tau", 1),
    "exploration_final_eps": ("exploration.epsilon.end", 1),
    "exploration_initial_eps": ("exploration.epsilon.start", 1),
    "exploration_fraction": ("exploration.epsilon.fraction", 1),
}
"""A word of Stable-Baselines3, rlexp's key, and how many times larger its value is."""


@pytest.mark.parametrize("name", WORKLOADS)
def test_both_peers_have_the_same_hyperparameters(name: str) -> None:
    workload = WORKLOADS[name]
    config, sb3 = composed(workload).config, dict(workload.sb3)

    def ours(key: str) -> Any:
        return functools.reduce(lambda node, part: node[part], key.split("."), config)

    hidden = sb3.pop("policy_kwargs")["net_arch"]
    assert ours("network.hidden") == (hidden if isinstance(hidden, list) else hidden["pi"])
    assert (ours("env.id"), ours("experience.num_envs")) == (workload.env_id, workload.sb3_num_envs)
    if name in ("W1", "W5"):
        steps = sb3.pop("n_steps")
        assert ours("experience.rollout_length") == steps
        assert ours("algorithm.num_minibatches") * sb3.pop("batch_size") == steps * workload.sb3_num_envs
        assert ours("estimator.lambda_") == sb3.pop("gae_lambda")
    if name == "W4":  # GAE of lambda 1 to the rollout's end is n-step
        steps = sb3.pop("n_steps")
        assert ours("experience.rollout_length") == ours("estimator.n_step") == steps
        assert sb3.pop("gae_lambda") == 1
        assert (sb3.pop("use_rms_prop"), sb3.pop("normalize_advantage")) == (True, False)
        assert ours("optimizer.rule._target_") == "torch.optim.RMSprop"
        assert ours("optimizer.rule.alpha") == 0.99  # Stable-Baselines3's own
    if name in ("W2", "W2b"):
        assert ours("algorithm.target_update_interval") * sb3["train_freq"] == sb3.pop("target_update_interval")
    if name == "W3":
        assert (sb3.pop("ent_coef"), sb3.pop("target_entropy")) == ("auto", "auto")  # -1 for each dimension, from 1.0
        assert (ours("algorithm.target_entropy"), ours("algorithm.initial_temperature")) == (-1, 1)
        assert ours("optimizer.max_grad_norm") is None
    for word, value in sb3.items():
        key, times = WORDS[word]
        assert ours(key) == times * value, word


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_window_holds_whole_rollouts(name: str) -> None:
    workload = WORKLOADS[name]
    a_rollout = workload.sb3.get("n_steps", workload.sb3.get("train_freq")) * workload.sb3_num_envs
    assert workload.steps % a_rollout == workload.warm_up % a_rollout == 0
    assert workload.warm_up < workload.steps
    assert workload.sb3.get("learning_starts", 0) < workload.warm_up


def one(speed: float, updates: int = 7) -> dict[str, float]:
    return {"env_steps": 10, "updates": updates, "steps_per_cpu_second": speed, "return": 1.0}


def test_a_ratio_is_taken_within_a_round() -> None:
    rounds = [{"sb3": one(100), "rlexp": one(300)}, {"sb3": one(10), "rlexp": one(20)}]
    assert benchmark.summarise(rounds)["ratio"] == {"median": 2.5, "min": 2.0, "max": 3.0}


def test_peers_that_did_other_work_are_not_compared() -> None:
    benchmark.refuse_unequal_work("W1", {"sb3": one(1), "rlexp": one(2)})
    with pytest.raises(SystemExit, match="W1: updates 7 of sb3, 8 of rlexp"):
        benchmark.refuse_unequal_work("W1", {"sb3": one(1), "rlexp": one(2, updates=8)})


def test_a_sweep_s_ways_are_compared_within_a_round() -> None:
    def way(wall: float) -> dict[str, float]:
        return {"wall_seconds": wall, "cpu_seconds": 1.0, "return": 2.0, "load": 0.0}

    rounds = [{"sb3": way(60), "stacked": way(10)}, {"sb3": way(40), "stacked": way(10)}]
    summary = benchmark.summarise_sweep(rounds)
    assert summary["ways"]["stacked"]["times_faster"] == {"median": 5.0, "min": 4.0, "max": 6.0}
    assert "| 10.0 (10.0..10.0) |" in benchmark.sweep_table(summary)


def test_the_words_of_each_way_are_those_of_the_same_ten_seeds() -> None:
    words = WORKLOADS["W1"].rlexp
    stacked, joblib, two = (rlexp_words(way, range(10)) for way in ("stacked", "joblib", "stacked_two"))
    (job,) = checked_jobs([*words, *stacked], multirun=False)
    assert job.config["seeds"] == list(range(10))
    jobs = checked_jobs([*words, *two[1:]], multirun=True)
    assert [job.config["seeds"] for job in jobs] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert two[0] == joblib[0] == "-m"
    assert joblib[1] == "seed=0,1,2,3,4,5,6,7,8,9"
