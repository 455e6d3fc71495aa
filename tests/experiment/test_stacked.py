"""Several seeds in one process: each has the rows, weights and evaluations that it has alone."""

from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

from rlexp.envs.vector import NotFinite
from rlexp.errors import ConfigError, NonFiniteError
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.members import Failures
from rlexp.experiment.standing import standings
from rlexp.experiment.status import read_results
from rlexp.storage import read_json
from rlexp.storage.checkpoints import load_tree
from rlexp.streams import derive_seed
from tests.experiment.support import TINY, rows_of, run_in

SEEDS = [3, 0, 7]
FALLING = "optimizer.learning_rate={_target_: rlexp.functional.schedules.linear, start: 0.01, end: 0.0, fraction: 1.0}"
CASES = {
    "ppo": ["algorithm=ppo", "experience.rollout_length=50", "experience.num_envs=4", "algorithm.num_epochs=2"],
    "ppo, target_kl": [
        "algorithm=ppo", "experience.rollout_length=20", "algorithm.target_kl=0.001", "algorithm.num_epochs=4",
    ],
    "a2c": ["algorithm=a2c", "experience.rollout_length=10"],
    "a2c, one encoder": ["algorithm=a2c", "experience.rollout_length=10", "algorithm.shared_encoder=true"],
    "sac": ["algorithm=sac", "env=pendulum", "experience.learning_starts=300", "network.hidden=[64,64]"],
    "ppo, normalised": [
        "algorithm=ppo", "experience.rollout_length=20", "experience.num_envs=4", "algorithm.num_epochs=1",
        "normalization=observations_and_rewards",
    ],
    "sac, normalised": [
        "algorithm=sac", "env=pendulum", "experience.learning_starts=300", "network.hidden=[16]",
        "normalization=observations_and_rewards",
    ],
    "ppo, odd sizes": [
        "algorithm=ppo", "env=acrobot", "experience.rollout_length=16", "experience.num_envs=4",
        "network.hidden=[50,13]", "algorithm.num_epochs=2",
    ],
    "sac, odd sizes": [
        "algorithm=sac", "env=pendulum", "experience.learning_starts=300", "network.hidden=[50,13]",
        "experience.batch_size=50",
    ],
    "dqn": ["algorithm=dqn", "experience.learning_starts=200", "network.hidden=[32,32]"],
    "dqn, n steps": [
        "algorithm=dqn", "experience.learning_starts=200", "experience.num_envs=2", "estimator=n_step",
        "experience.sequence_length=5", "network.layer_norm=true",
    ],
    "reinforce": [
        "algorithm=reinforce", "baseline=value", "experience.num_episodes=2", "experience.num_envs=2", FALLING,
        "logger.interval=110", "evaluation.interval=190",  # several turns, due at others for each seed
    ],
    "reinforce, normalised": [
        "algorithm=reinforce", "baseline=value", "experience.num_episodes=2", "experience.num_envs=2",
        "normalization=observations_and_rewards",
    ],
    "reinforce, no baseline": [
        "algorithm=reinforce", "baseline=none", "experience.num_episodes=3", "experience.num_envs=3",
    ],
}  # fmt: skip


def stacked(tmp_path: Path, *overrides: str, seeds: list[int] = SEEDS) -> Path:
    return run_in(tmp_path, *TINY, f"seeds={seeds}".replace(" ", ""), *overrides)


QUICK = ("ppo, target_kl", "ppo, normalised", "ppo, odd sizes", "sac, odd sizes", "dqn, n steps", "reinforce")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_each_seed_equals_itself_alone(case: str, tmp_path: Path) -> None:
    compare(tmp_path, SEEDS, [*TINY, *CASES[case]])


LONG = {
    "ppo": ["algorithm=ppo", "total_env_steps=20_000"],  # 20 rollouts, 800 updates
    "a2c": ["algorithm=a2c", "total_env_steps=80_000"],  # 2,000 updates
    "reinforce": ["algorithm=reinforce", "total_env_steps=40_000"],  # over 20 batches of each
    "dqn": [
        "algorithm=dqn", "total_env_steps=21_000", "network.hidden=[64,64]", "network.activation=relu",
    ],
    "sac": [
        "algorithm=sac", "env=pendulum", "total_env_steps=3_000", "network.hidden=[64,64]", "experience.batch_size=64",
        "experience.collection_steps=1",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG)
def test_each_of_five_seeds_equals_itself_alone_for_long(case: str, tmp_path: Path) -> None:
    """Twenty rollouts or two thousand updates: time for one last bit to become another action."""
    compare(tmp_path, [0, 1, 2, 3, 4], [*TINY, *LONG[case]])


def compare(outputs: Path, seeds: list[int], line: list[str]) -> None:
    """Train seeds together, then each alone; rows, weights and status of each must be equal, bit for bit."""
    together = run_in(outputs, *line, f"seeds={seeds}".replace(" ", ""))
    standing = {one.folder.name: one for one in standings(together)[0]}
    assert list(standing) == [together.name, *(f"s{seed}" for seed in sorted(seeds))]
    assert {one.state for one in standing.values()} == {"finished"}
    assert read_results(together).keys() == set(seeds)
    for seed in seeds:
        single = run_in(outputs, *line, f"seed={seed}")
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
        (["seeds=[0,1]", "execution.compile=true"], "compiled_seeds"),
    ],
)
def test_seeds_that_cannot_be_trained_together_are_refused(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_jobs(line, multirun=False)


def test_other_seeds_have_another_folder(tmp_path: Path) -> None:
    short = [*CASES["ppo"], "total_env_steps=200", "checkpoint.interval=200"]
    first = stacked(tmp_path, *short, seeds=[0, 1, 2])
    others = [stacked(tmp_path, *short, seeds=seeds) for seeds in ([0, 2, 3], [0, 1, 3])]
    assert first.name == "seeds_0-2_3"
    assert len({first, *others}) == 3
    assert {folder.name.rpartition("_")[0] for folder in others} == {"seeds_0-3_3"}
    assert stacked(tmp_path, *short, seeds=[0, 1, 2]) == first


def test_seeds_of_whole_episodes_go_and_end_apart(tmp_path: Path) -> None:
    """Each by its own steps: its learning rate, its updates, its rows and evaluations, its end."""
    directory = stacked(tmp_path, *CASES["reinforce"])
    seeds = [rows_of(directory / f"s{seed}") for seed in SEEDS]
    train = [[row for row in rows if row["kind"] == "train"] for rows in seeds]
    last = [rows[-1] for rows in train]
    assert all(800 <= row["env_steps"] < 1100 for row in last)
    assert len({row["env_steps"] for row in last}) == len({row["updates"] for row in last}) == 3
    assert len({tuple(row["updates"] for row in rows) for rows in train}) == 3
    for rows, of_seed in zip(train, seeds, strict=True):
        for row in rows:  # of the update before the row, which knew the steps of its batch
            assert row["optimizer/learning_rate"] == pytest.approx(max(0.0, 0.01 * (1 - row["env_steps"] / 800)))
        evaluated = [row["env_steps"] for row in of_seed if row["kind"] == "eval"]
        assert len(evaluated) in (4, 5)  # at 190, 380, 570, 760 and the end, which may be the turn that passes 760
        assert evaluated[-1] == rows[-1]["env_steps"]
        assert [row["kind"] for row in of_seed].count("final") == 1


def test_a_list_of_one_seed(tmp_path: Path) -> None:
    line = CASES["reinforce, no baseline"]
    assert rows_of(stacked(tmp_path, *line, seeds=[4]) / "s4") == rows_of(run_in(tmp_path, *TINY, *line, "seed=4"))


NAN_FOR = 1  # the seed whose rewards turn into NaN


class Broken(gymnasium.Env):
    """Rewards are NaN from the third episode on where the episode's seed is one of BROKEN's."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    seeds = frozenset(derive_seed(NAN_FOR, "environment", i, k) for i in range(8) for k in range(2, 60))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reward = float("nan") if seed in self.seeds else 1.0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return (
            self.np_random.uniform(-1, 1, 2).astype(np.float32),
            self.reward,
            self.np_random.random() < 0.05,
            False,
            {},
        )


@pytest.fixture
def broken_env(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    gymnasium.register("Broken-v0", entry_point=Broken, max_episode_steps=50)
    yield ["env.id=Broken-v0", "env.declared=" + DECLARED]
    del gymnasium.registry["Broken-v0"]


EACH_SEES_3 = ["experience.num_envs=2", "experience.num_episodes=6"]
DECLARED = "{of:Broken-v0,observation:{kind:box,shape:[2]},action:{kind:discrete,n:2},time_limit:50,has_model:false}"
FEW = ["algorithm=ppo", "experience.rollout_length=20", "experience.num_envs=4", "algorithm.num_epochs=1"]


@pytest.mark.parametrize("few", [FEW, ["algorithm=reinforce", *EACH_SEES_3]], ids=["ppo", "reinforce"])
def test_a_seed_that_is_not_finite_is_frozen_and_named_and_the_others_finish(
    few: list[str], tmp_path: Path, broken_env
) -> None:
    """Also where the run is interrupted afterwards: the continued one still knows."""
    with pytest.raises(NonFiniteError, match=r"environment \d, episode seed \d+, before step \d+; ") as alone:
        run_in(tmp_path, *TINY, *broken_env, *few, "seed=1")
    with pytest.raises(NonFiniteError) as together:
        stacked(tmp_path, *broken_env, *few, seeds=[0, 1, 2])
    assert str(together.value) == f"seed 1: {alone.value}; the other seeds finished"
    (directory,) = tmp_path.glob("*/*/seeds_0-2_3")
    assert read_json(directory / "status.json")["exit_code"] == 4
    states = [read_json(directory / f"s{seed}" / "status.json")["state"] for seed in range(3)]
    assert states == ["finished", "failed", "finished"]
    for seed in (0, 2):
        assert rows_of(directory / f"s{seed}") == rows_of(run_in(tmp_path, *TINY, *broken_env, *few, f"seed={seed}"))
    frozen = rows_of(directory / "s1")
    assert 0 < frozen[-1]["env_steps"] < 800
    with pytest.raises(NonFiniteError, match="seed 1"):  # the same command again says the same
        stacked(tmp_path, *broken_env, *few, seeds=[0, 1, 2])
    assert rows_of(directory / "s1") == frozen


def test_each_seed_is_told_of_its_own_environments() -> None:
    nan = "observation[0] is nan"
    found = [NotFinite(5, 50, 2, nan), NotFinite(1, 10, 3, nan)]
    vector = SimpleNamespace(num_envs=6, spec=SimpleNamespace(id="Mine-v0"), not_finite=lambda: found)
    failures = Failures([7, 8, 9])
    failures.watch(vector)
    for index in range(3):
        failures.add(index, "loss/q became nan", SimpleNamespace(frozen=[False] * 3, freeze=lambda index: None))
    assert failures.messages[7] == NotFinite(1, 10, 3, nan).describe(vector.spec)
    assert failures.messages[8] == "loss/q became nan"
    assert failures.messages[9] == NotFinite(1, 50, 2, nan).describe(vector.spec)


def test_no_seed_left_ends_the_run(tmp_path: Path, broken_env) -> None:
    with pytest.raises(NonFiniteError, match="reward or observation is not finite"):
        stacked(tmp_path, *broken_env, *FEW, seeds=[1])
    with pytest.raises(NonFiniteError, match=r"became (nan|inf|-inf) by env_steps="):  # no environment is to blame
        stacked(tmp_path, *FEW, "optimizer.learning_rate=1e30", "optimizer.max_grad_norm=null", seeds=[0, 2])
