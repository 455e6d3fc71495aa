"""Rollout, replay and sweep: what data come, and when."""

import pytest
import torch

from rlexp.clock import Clock
from rlexp.experience.replay import Replay
from rlexp.experience.rollout import Rollout
from rlexp.experience.sweep import Sweep
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.types import MDP, Transition, Update
from tests.experience.parts import START, NoiseActor, make_collector, make_normaliser

RATES = {
    "capacity": 50, "batch_size": 4, "sequence_length": 1, "learning_starts": 20, "collection_steps": 6,
    "updates_per_collection": 3,
}  # fmt: skip


def make_replay(num_envs: int = 2, **changes) -> Replay:
    collector = make_collector(num_envs=num_envs)
    return Replay(
        collector, make_normaliser(collector.vector.spec), Clock(), [0], num_envs=num_envs, **{**RATES, **changes}
    )


def make_rollout(length: int, num_envs: int = 2) -> Rollout:
    collector = make_collector(num_envs=num_envs)
    return Rollout(collector, make_normaliser(collector.vector.spec), rollout_length=length, num_envs=num_envs)


def same(one: Transition, other: Transition) -> bool:
    return all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def clone(batch: Transition) -> Transition:
    return Transition(*(None if x is None else x.clone() for x in batch))


# -------------------------------------------------------------------------------------------------------------- rollout


def test_rollout_gives_fresh_data_with_their_log_probabilities() -> None:
    rollout = make_rollout(7, 3)
    first = clone(rollout.next(NoiseActor(), START))
    second = clone(rollout.next(NoiseActor(), START))
    for batch in (first, second):
        assert batch.observation.shape == (7, 3, 4)
        for x in (batch.action, batch.reward, batch.terminated, batch.truncated, batch.time, batch.log_prob):
            assert x.shape == (7, 3)
        assert torch.equal(batch.log_prob, batch.observation.sum(-1) + batch.action)
        assert not batch.log_prob.requires_grad
    assert torch.equal(second.observation[0], first.next_observation[-1])
    assert (rollout.env_steps, rollout.gives) == (42, "rollout")


def test_a_rollout_can_be_learned_from() -> None:
    """Collected in inference mode, yet its tensors may stand in a graph."""
    batch = make_rollout(3).next(NoiseActor(), START)
    weight = torch.ones(4, requires_grad=True)
    (batch.observation @ weight).sum().backward()
    assert weight.grad is not None


def test_rollout_resumes(tmp_path) -> None:
    rollout, resumed = (make_rollout(9) for _ in range(2))
    rollout.next(NoiseActor(), START)
    save_tree(tmp_path / "a", rollout.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    assert resumed.env_steps == 18
    for _ in range(3):
        assert same(clone(rollout.next(NoiseActor(), START)), resumed.next(NoiseActor(), START))


# --------------------------------------------------------------------------------------------------------------- replay


def turns(replay: Replay, count: int) -> list[tuple[int, bool]]:
    """Environment steps after each turn, and whether a batch came."""
    actor, seen = NoiseActor(), []
    for _ in range(count):
        batch = replay.next(actor, START)
        seen.append((replay.env_steps, batch is not None))
    return seen


def test_replay_rates() -> None:
    """Nothing until 20 steps are in, then three batches for each six steps."""
    assert turns(make_replay(), 11) == [
        (6, False), (12, False), (18, False),
        (24, True), (24, True), (24, True),
        (30, True), (30, True), (30, True),
        (36, True), (36, True),
    ]  # fmt: skip


@pytest.mark.parametrize(("starts", "expected"), [(0, [True]), (6, [True]), (7, [False, True]), (12, [False, True])])
def test_learning_starts_once_that_many_transitions_are_in(starts: int, expected) -> None:
    replay = make_replay(learning_starts=starts, updates_per_collection=1)
    assert [came for _, came in turns(replay, len(expected))] == expected


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_rates_count_transitions_not_vector_steps(num_envs: int) -> None:
    replay = make_replay(num_envs, updates_per_collection=1)
    assert [steps for steps, _ in turns(replay, 5)] == [6, 12, 18, 24, 30]


def test_replay_draws_from_the_last_that_fit() -> None:
    replay = make_replay(batch_size=2000, updates_per_collection=1, capacity=12)
    actor = NoiseActor()
    for _ in range(10):
        batch = replay.next(actor, START)
    assert batch.observation.shape == (1, 2000, 4)
    assert len(batch.observation[0].unique(dim=0)) == 12
    assert replay.statistics(0)["replay/size"] == 12.0
    done = torch.maximum(batch.terminated, batch.truncated)
    assert ((batch.time >= 0) & (done >= 0)).all()


def test_each_batch_is_a_new_draw() -> None:
    replay, actor = make_replay(batch_size=30), NoiseActor()
    batches = [batch for batch in (replay.next(actor, START) for _ in range(6)) if batch is not None]
    assert len(batches) == 3
    assert not torch.equal(batches[0].observation, batches[1].observation)


def test_replay_owes_the_rest_of_its_batches() -> None:
    replay, actor, owed = make_replay(), NoiseActor(), []
    for _ in range(7):
        replay.next(actor, START)
        owed.append(replay.owed)
    assert owed == [False, False, False, True, True, False, True]


@pytest.mark.parametrize("played", [2, 3, 6, 9, 21])
def test_replay_resumes_between_turns(played: int, tmp_path) -> None:
    replay, resumed = make_replay(), make_replay()
    turns(replay, played)
    save_tree(tmp_path / "a", replay.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    actors = NoiseActor(), NoiseActor()
    for _ in range(12):
        one, other = replay.next(actors[0], START), resumed.next(actors[1], START)
        assert replay.env_steps == resumed.env_steps
        assert (one is None and other is None) or same(one, other)


# ---------------------------------------------------------------------------------------------------------------- sweep

MODEL = MDP(torch.zeros(2, 1, 2), torch.ones(2, 1))


def residual(x: float) -> Update:
    return Update({"value/bellman_residual": torch.tensor(x, dtype=torch.float64)})


def test_sweep_gives_the_model_and_ends_at_its_tolerance() -> None:
    sweep = Sweep(MODEL, tolerance=0.1)
    for k, (left, finished) in enumerate([(1.0, False), (0.11, False), (0.1, True)]):
        assert sweep.next(NoiseActor(), START) is MODEL
        assert sweep.env_steps == k + 1
        sweep.feedback(None, residual(left))
        assert sweep.finished is finished
    resumed = Sweep(MODEL, tolerance=0.1)
    resumed.load_state_dict(sweep.state_dict())
    assert (resumed.env_steps, resumed.finished) == (3, True)


def test_what_steps_environments_is_never_finished() -> None:
    rollout = make_rollout(2)
    rollout.next(NoiseActor(), START)
    assert not rollout.finished
    assert not make_replay().finished


@pytest.mark.parametrize(
    ("num_envs", "length", "expected"), [(1, 7, [False, True]), (2, 7, [False, False, True]), (3, 2, [True])]
)
def test_replay_waits_for_a_whole_sequence(num_envs: int, length: int, expected) -> None:
    replay = make_replay(num_envs, learning_starts=0, updates_per_collection=1, sequence_length=length)
    assert [came for _, came in turns(replay, len(expected))] == expected
    assert replay.next(NoiseActor(), START).reward.shape[0] == length
