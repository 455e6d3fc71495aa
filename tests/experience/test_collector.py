"""Segments [T, B, ...]: continuous within an episode, true at its ends, and the same whoever stands beside them."""

from types import SimpleNamespace

import numpy as np
import pytest

from rlexp.clock import Clock
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import Episode
from rlexp.errors import NonFiniteError
from rlexp.experience.collector import Collector, episode_statistics
from rlexp.storage.checkpoints import load_tree, save_tree
from tests.envs.toys import Counter, counter_spec, simple_seed
from tests.experience.parts import START, NoiseActor, make_collector


def collect(collector: Collector, steps: int, actor=None) -> dict[str, np.ndarray]:
    segment = collector.collect(actor or NoiseActor(), START, steps)
    return {name: column.copy() for name, column in segment.items()}


def test_shapes() -> None:
    segment = collect(make_collector(num_envs=3), 5)
    assert segment["observation"].shape == segment["next_observation"].shape == (5, 3, 4)
    for name in ("action", "reward", "terminated", "truncated", "time"):
        assert segment[name].shape == (5, 3)
    assert segment["action"].dtype == segment["time"].dtype == np.int64


def test_rows_follow_each_other_within_and_across_segments() -> None:
    collector = make_collector(num_envs=3, time_limit=25)
    segments = [collect(collector, 40) for _ in range(3)]
    whole = {name: np.concatenate([s[name] for s in segments]) for name in segments[0]}
    done = np.maximum(whole["terminated"], whole["truncated"])[:-1] > 0
    assert whole["terminated"].any()
    assert whole["truncated"].any()
    following = whole["observation"][1:] == whole["next_observation"][:-1]
    assert following[~done].all()
    assert not following[done].all(-1).any()  # the true successor is not where the next episode begins
    assert (whole["time"][1:][~done] == whole["time"][:-1][~done] + 1).all()
    assert (whole["time"][1:][done] == 0).all()
    assert (whole["time"][:-1][whole["truncated"][:-1] > 0] == 24).all()
    assert collector.env_steps == 360


def test_an_environment_does_not_depend_on_those_beside_it() -> None:
    alone, together = collect(make_collector(num_envs=1), 80), collect(make_collector(num_envs=3), 80)
    for name, column in alone.items():
        np.testing.assert_array_equal(column[:, 0], together[name][:, 0])
    assert not np.array_equal(together["action"][:, 0], together["action"][:, 1])


def test_seeds_differ() -> None:
    one, other = collect(make_collector(seed=0), 20), collect(make_collector(seed=1), 20)
    assert not np.array_equal(one["observation"], other["observation"])
    assert not np.array_equal(one["action"], other["action"])


def test_progress_counts_every_step_for_the_schedules() -> None:
    actor = NoiseActor()
    make_collector(num_envs=3).collect(actor, START._replace(env_steps=30), 4)
    assert [p.env_steps for p in actor.seen] == [30, 33, 36, 39]


@pytest.mark.parametrize("name", ["frozen_lake", "cartpole"])
def test_resumes_bit_for_bit(name: str, tmp_path) -> None:
    collector, resumed = make_collector(name), make_collector(name)
    collect(collector, 33)
    save_tree(tmp_path / "a", collector.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    assert resumed.env_steps == 66
    for _ in range(3):
        one, other = collect(collector, 20), collect(resumed, 20)
        for column in one:
            np.testing.assert_array_equal(one[column], other[column])
    assert collector.statistics(0) == resumed.statistics(0)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_reward_that_is_no_number_does_not_get_through(at: int) -> None:
    """Also where its episode (5 steps) ends inside the segment."""
    vector = SyncVector(lambda: Counter(rewards={at: float("nan")}), counter_spec(5), 2, simple_seed)
    with pytest.raises(NonFiniteError):
        collect(Collector(vector, [0], Clock()), 7)


def test_of_stacked_seeds_a_reward_that_is_no_number_is_noted_as_that_of_one_seed_would_be() -> None:
    vector = SyncVector(lambda: Counter(rewards={4: float("nan")}), counter_spec(50), 2, simple_seed)
    collector, actor = Collector(vector, [0, 1], Clock()), NoiseActor()
    actor.state = SimpleNamespace(stacked=True, frozen=[False, False])
    for _ in range(2):
        collect(collector, 7, actor)
    assert [(found.env, found.step) for found in vector.not_finite()] == [(0, 7), (1, 7)]


def test_statistics_of_finished_episodes() -> None:
    episodes = [Episode(0, 0, 5, 10.0, 4), Episode(1, 0, 6, -4.0, 2)]
    assert episode_statistics(episodes) == {
        "episode/return": 3.0, "episode/length": 3.0, "episode/reward_per_step": 1.0, "episode/count": 2.0,
    }  # fmt: skip
    assert episode_statistics([]) == {}
    collector = make_collector(num_envs=2, time_limit=5)
    collect(collector, 10)
    assert collector.statistics(0) == episode_statistics([Episode(0, 0, 0, 5.0, 5)] * 4)
    assert collector.statistics(0) == {}


def test_actions_that_are_no_numbers_do_not_reach_the_environments_of_several_seeds() -> None:
    """They stay in the segment: the loss and the row show them, and that seed alone is frozen."""

    class Broken(NoiseActor):
        state = SimpleNamespace(stacked=True, frozen=[False, False])

        def __call__(self, observation, noise, progress, *, explore):
            return np.float32([[0.5], [np.nan]])

    segment = collect(make_collector("pendulum", num_envs=2), 3, Broken())
    assert np.isnan(segment["action"][:, 1]).all()
    assert np.isfinite(segment["next_observation"]).all()
