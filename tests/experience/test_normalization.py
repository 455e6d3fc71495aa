"""Observations and rewards on the scale of running moments: closed forms, and who sees which moments."""

import numpy as np
import pytest
import torch

from rlexp.clock import Clock
from rlexp.experience.normalization import Normaliser, Scaling
from rlexp.experience.replay import Replay
from rlexp.experience.rollout import Rollout
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.types import Box, Discrete, EnvSpec, Transition
from tests.experience.parts import START, NoiseActor, make_collector, make_normaliser

SPEC = EnvSpec("Numbers-v0", Box((2,)), Discrete(2), 100, False)


def segment(seed: int, length: int = 6, width: int = 4, spec: EnvSpec = SPEC) -> dict[str, np.ndarray]:
    """Random steps [T, width, ...]; some end."""
    random = np.random.default_rng(seed)
    shape = (length, width)
    ends = random.random((2, *shape)) < 0.2
    return {
        "observation": random.normal(3, 2, (*shape, *spec.observation.shape)).astype(np.float32),
        "action": np.zeros(shape, np.int64),
        "reward": random.normal(1, 3, shape).astype(np.float32),
        "terminated": ends[0].astype(np.float32),
        "truncated": (ends[1] & ~ends[0]).astype(np.float32),
        "next_observation": random.normal(3, 2, (*shape, *spec.observation.shape)).astype(np.float32),
        "time": np.zeros(shape, np.int64),
    }


def test_observations_meet_the_moments_that_acted() -> None:
    """The first rollout stays raw (bounded); the second is scaled by the first, and not by itself."""
    normaliser, first, second = make_normaliser(SPEC, 4, observations=1.5), segment(0), segment(1)
    raw = {name: column.copy() for name, column in first.items()}
    given = normaliser.fresh(first)
    assert np.array_equal(given["observation"], np.clip(raw["observation"], -1.5, 1.5))
    assert all(np.array_equal(first[name], raw[name]) for name in raw)  # the collector's arrays are not written to
    mean, std = raw["observation"].mean((0, 1)), raw["observation"].std((0, 1))
    given = normaliser.fresh(second)
    for name in ("observation", "next_observation"):
        assert np.allclose(given[name], np.clip((second[name] - mean) / std, -1.5, 1.5), atol=1e-6)
        assert given[name].dtype == np.float32
    assert np.array_equal(given["reward"], second["reward"])
    assert normaliser.statistics(0) == {}


def test_rewards_are_divided_by_the_spread_of_discounted_returns() -> None:
    """gamma 0.5; an environment whose episode ends begins again from 0, on the next segment too."""
    normaliser = make_normaliser(SPEC, 2, rewards=10.0)
    steps = segment(0, 3, 2)
    steps["reward"] = np.array([[1, 2], [1, 2], [1, 2]], np.float32)
    steps["terminated"] = np.array([[0, 0], [0, 1], [0, 0]], np.float32)
    steps["truncated"] = np.zeros((3, 2), np.float32)
    returns = [[1, 2], [1.5, 3], [1.75, 2]]
    given = normaliser.fresh(steps)
    assert np.allclose(given["reward"], steps["reward"] / np.std(returns), rtol=1e-6)
    assert np.array_equal(given["observation"], steps["observation"])
    returns += [[1.875, 3], [1.9375, 3.5], [1.96875, 2]]
    steps["truncated"], steps["terminated"] = np.array([[0, 0], [0, 1], [1, 0]], np.float32), 0 * steps["terminated"]
    assert np.allclose(normaliser.fresh(steps)["reward"], steps["reward"] / np.std(returns), rtol=1e-6)
    assert normaliser.statistics(0) == {"normalization/reward_scale": pytest.approx(np.std(returns), rel=1e-6)}
    returns += [[1, 3], [1.5, 3.5], [1.75, 2]]
    assert np.allclose(normaliser.fresh(steps)["reward"], steps["reward"] / np.std(returns), rtol=1e-6)


def test_rewards_are_bounded_and_zero_stays_zero() -> None:
    normaliser, steps = make_normaliser(SPEC, 4, rewards=0.5), segment(0)
    steps["reward"][0] = 0
    steps["reward"][1] = 1000
    given = normaliser.fresh(steps)["reward"]
    assert (given[0] == 0).all()
    assert (given[1] == 0.5).all()


def test_neither_is_scaled_where_neither_is_asked_for() -> None:
    normaliser, steps = make_normaliser(SPEC, 4), segment(0)
    for _ in range(2):
        given = normaliser.fresh(steps)
        assert all(given[name] is steps[name] for name in ("observation", "next_observation", "reward"))
    assert normaliser.state_dict() == {}


def test_steps_that_were_not_taken_teach_nothing() -> None:
    """An environment that waits keeps its discounted return; its row of the step is an old one."""
    whole, waiting = (make_normaliser(SPEC, 2, observations=5.0, rewards=5.0) for _ in range(2))
    steps = segment(0, 6, 2)
    whole.learn(steps)
    stretched = {name: np.repeat(column, 2, 0) for name, column in steps.items()}
    active = np.zeros((12, 2), bool)
    active[0::2, 0] = active[1::2, 1] = True  # each environment is stepped every other time
    stretched["observation"][~active] = stretched["reward"][~active] = np.nan
    waiting.learn({**stretched, "active": active})
    assert waiting.statistics(0) == pytest.approx(whole.statistics(0), rel=1e-6)
    for one, other in zip(whole.scaling.of(0), waiting.scaling.of(0), strict=True):
        assert np.allclose(one, other, rtol=1e-6)
    waiting.learn({**stretched, "active": np.zeros((12, 2), bool)})
    assert waiting.statistics(0) == pytest.approx(whole.statistics(0), rel=1e-6)


def test_seeds_have_moments_of_their_own_that_equal_those_alone() -> None:
    stacked = make_normaliser(SPEC, 2, seeds=3, observations=5.0, rewards=5.0)
    alone = [make_normaliser(SPEC, 2, observations=5.0, rewards=5.0) for _ in range(3)]
    for number in range(3):
        steps = segment(number, width=6)
        given = stacked.fresh(steps)
        for s, each in enumerate(alone):
            of_seed = slice(2 * s, 2 * s + 2)
            single = each.fresh({name: column[:, of_seed] for name, column in steps.items()})
            for name in given:
                assert np.array_equal(given[name][:, of_seed], single[name])
    observation = segment(9, width=6)["observation"][0]
    acted = [each.scaling(observation[2 * s : 2 * s + 2]) for s, each in enumerate(alone)]
    assert np.array_equal(stacked.scaling(observation), np.concatenate(acted))
    assert [stacked.statistics(s) for s in range(3)] == [each.statistics(0) for each in alone]


def test_what_is_drawn_again_is_scaled_alike() -> None:
    """Tensors [S, T, B, ...] from replay and arrays [T, S B, ...] from a rollout, bit for bit."""
    normaliser = make_normaliser(SPEC, 2, seeds=2, observations=2.0, rewards=1.0)
    normaliser.learn(segment(0))
    raw = segment(1)
    drawn = {
        name: torch.from_numpy(column.reshape(6, 2, 2, *column.shape[2:])).movedim(1, 0) for name, column in raw.items()
    }
    batch = normaliser.drawn(Transition(**drawn))
    observation = normaliser.scaling(raw["observation"]).reshape(6, 2, 2, 2)
    assert np.array_equal(batch.observation.movedim(0, 1).numpy(), observation)
    successor = normaliser.scaling(raw["next_observation"]).reshape(6, 2, 2, 2)
    assert np.array_equal(batch.next_observation.movedim(0, 1).numpy(), successor)
    scale = torch.tensor([normaliser.statistics(s)["normalization/reward_scale"] for s in range(2)])
    assert torch.equal(batch.reward, (drawn["reward"] / scale[:, None, None]).clamp(-1, 1))
    assert (batch.reward.abs() == 1).any()


def test_scaling_is_kept_beside_the_weights() -> None:
    normaliser = make_normaliser(SPEC, 2, seeds=2, observations=3.0)
    normaliser.learn(segment(0))
    observation = segment(1)["observation"][0]
    for index in range(2):
        single = Scaling(1, (2,), 3.0)
        single.load(normaliser.scaling.of(index))
        of_seed = slice(2 * index, 2 * index + 2)
        assert np.array_equal(single(observation[of_seed]), normaliser.scaling(observation)[of_seed])
    with pytest.raises(ValueError, match="saved moments"):
        Scaling(1, (3,), 3.0).load(normaliser.scaling.of(0))


@pytest.mark.parametrize("clips", [(3.0, None), (None, 3.0), (3.0, 3.0)])
def test_it_goes_on_where_it_was_saved(clips: tuple[float | None, float | None], tmp_path) -> None:
    normaliser, loaded = (make_normaliser(SPEC, 2, 2, *clips) for _ in range(2))
    normaliser.fresh(segment(0))
    save_tree(tmp_path / "a", normaliser.state_dict())
    loaded.load_state_dict(load_tree(tmp_path / "a"))
    for number in (1, 2):
        one, other = normaliser.fresh(segment(number)), loaded.fresh(segment(number))
        assert all(np.array_equal(one[name], other[name]) for name in one)


class SeeingActor(NoiseActor):
    """Scales as an actor does, and remembers what its policy saw."""

    def __init__(self, normaliser: Normaliser) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.saw: list[np.ndarray] = []

    def __call__(self, observation, noise, progress, *, explore):
        self.saw.append(self.normaliser.scaling(observation).copy())
        return super().__call__(observation, noise, progress, explore=explore)


def test_a_rollout_is_learned_as_it_was_acted() -> None:
    collector = make_collector(num_envs=2)
    normaliser = make_normaliser(collector.vector.spec, 2, observations=4.0, rewards=4.0)
    rollout, actor = Rollout(collector, normaliser, rollout_length=20, num_envs=2), SeeingActor(normaliser)
    for _ in range(3):
        actor.saw.clear()
        batch = rollout.next(actor, START)
        assert np.array_equal(batch.observation.numpy(), np.stack(actor.saw))
        assert torch.equal(batch.log_prob, batch.observation.sum(-1) + batch.action)
        inner = (batch.terminated + batch.truncated)[:-1] == 0
        assert torch.equal(batch.next_observation[:-1][inner], batch.observation[1:][inner])
    assert "normalization/reward_scale" in rollout.statistics(0)


def test_replay_keeps_what_is_raw_and_scales_what_it_draws() -> None:
    collector = make_collector(num_envs=1)
    normaliser = make_normaliser(collector.vector.spec, 1, observations=4.0, rewards=4.0)
    rates = {"capacity": 40, "batch_size": 64, "sequence_length": 1, "learning_starts": 40, "collection_steps": 10}
    replay = Replay(collector, normaliser, Clock(), [0], num_envs=1, updates_per_collection=1, **rates)
    actor, drawn = NoiseActor(), []
    for _ in range(12):
        batch = replay.next(actor, START)
        drawn += [] if batch is None else [batch]
    stored = replay.state_dict()["buffer"]["columns"]
    assert len(drawn) == 9
    scaled = {tuple(row) for row in normaliser.scaling(stored["observation"]).tolist()}
    assert {tuple(row) for row in drawn[-1].observation[0].tolist()} <= scaled
    assert not {tuple(row) for row in drawn[0].observation[0].tolist()} <= scaled
    assert (stored["reward"] == 1).all()
    assert drawn[-1].reward[0, 0] == pytest.approx(1 / replay.statistics(0)["normalization/reward_scale"], rel=1e-6)
