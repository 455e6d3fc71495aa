"""Whole episodes: each once, none preferred, all their steps counted, the same after a resume."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlexp.clock import Clock
from rlexp.envs.sync import SyncVector
from rlexp.errors import ConfigError
from rlexp.experience.episodes import CHUNK, Episodes
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.streams import derive_seed
from rlexp.types import Noise, Transition
from tests.envs.toys import Counter, counter_spec, simple_seed
from tests.envs.vectors import make_vector
from tests.experience.parts import START, NoiseActor, make_collector, make_normaliser


class Uneven(Counter):
    """An episode lasts 1 to 5 steps, by its seed; those of the first environment are the short ones."""

    def reset(self, *, seed=None, options=None):
        self.ends_after = 1 + (seed % 7) % 3 + (2 if seed >= 100 else 0)
        return super().reset(seed=seed, options=options)


def make(num_envs: int = 3, num_episodes: int = 6, time_limit: int = 100, env=Uneven) -> Episodes:
    vector = SyncVector(env, counter_spec(time_limit), num_envs, simple_seed)
    return Episodes(
        vector, make_normaliser(vector.spec, num_envs), Clock(), [0], num_episodes=num_episodes, num_envs=num_envs
    )


def cartpole(num_envs: int, num_episodes: int, time_limit: int | None = None) -> Episodes:
    vector = make_collector(num_envs=num_envs, time_limit=time_limit).vector
    return Episodes(
        vector, make_normaliser(vector.spec, num_envs), Clock(), [0], num_episodes=num_episodes, num_envs=num_envs
    )


def several(num_envs: int, num_episodes: int, seeds: list[int], kind: str = "sync", time_limit: int = 30) -> Episodes:
    """CartPole; the environments of the seeds beside each other."""
    vector = make_vector(kind, "cartpole", num_envs * len(seeds), time_limit, seeds_beside(seeds, num_envs))
    normaliser = make_normaliser(vector.spec, num_envs, len(seeds))
    return Episodes(vector, normaliser, Clock(), seeds, num_episodes=num_episodes, num_envs=num_envs)


def seeds_beside(seeds: list[int], num_envs: int):
    return lambda i, k: derive_seed(seeds[i // num_envs], "environment", i % num_envs, k)


class StackedActor(NoiseActor):
    """For several seeds, the second of which may be frozen."""

    def __init__(self, num_seeds: int, frozen: bool = False) -> None:
        super().__init__()
        marks = [frozen and s == 1 for s in range(num_seeds)]
        self.state = SimpleNamespace(device=torch.device("cpu"), stacked=True, frozen=marks)


def lengths(batch: Transition) -> list[int]:
    return batch.valid.sum(0).int().tolist()


def test_each_episode_comes_once_and_whole_and_every_environment_plays_its_share() -> None:
    episodes, seen, steps = make(), [], 0
    for _ in range(4):
        batch = episodes.next(NoiseActor(), START)
        assert batch.reward.shape == (CHUNK, 6)
        for n, length in enumerate(lengths(batch)):
            seeds, times = batch.observation[:length, n].T
            assert len(seeds.unique()) == 1
            assert times.tolist() == batch.time[:length, n].tolist() == list(range(length))
            assert batch.terminated[:length, n].tolist() == [0.0] * (length - 1) + [1.0]
            assert batch.next_observation[:length, n, 1].tolist() == list(range(1, length + 1))
            assert batch.reward[:length, n].tolist() == list(range(length))
            seen.append(int(seeds[0]))
        steps += sum(lengths(batch))
        assert episodes.env_steps == steps
    # Episodes 0 to 7 of each environment, two a batch: none left out, none twice, short or long.
    assert seen == [100 * i + 2 * k + j for k in range(4) for i in range(3) for j in range(2)]
    assert (episodes.gives, episodes.finished, episodes.owed) == ("episodes", False, False)


def test_padding_is_zero_and_not_valid() -> None:
    batch = make().next(NoiseActor(), START)
    padding = batch.valid == 0
    assert padding.any()
    assert set(batch.valid.unique().tolist()) == {0.0, 1.0}
    for name in ("observation", "action", "reward", "terminated", "truncated", "next_observation", "time"):
        assert not getattr(batch, name)[padding].any()
    assert (batch.valid[1:] <= batch.valid[:-1]).all()


@pytest.mark.parametrize(("time_limit", "rows"), [(1, CHUNK), (CHUNK, CHUNK), (CHUNK + 1, 2 * CHUNK), (200, 4 * CHUNK)])
def test_lengths_are_padded_to_few_shapes(time_limit: int, rows: int) -> None:
    batch = make(2, 2, time_limit, Counter).next(NoiseActor(), START)
    assert batch.valid.shape == (rows, 2)
    assert lengths(batch) == [time_limit] * 2
    assert batch.truncated[time_limit - 1].tolist() == [1.0, 1.0]
    assert not batch.terminated.any()


class Recorder(NoiseActor):
    """Remembers the noise it was given."""

    noise = Noise("uniform", 1)

    def __init__(self) -> None:
        super().__init__()
        self.noises: list[np.ndarray] = []

    def __call__(self, observation, noise, progress, *, explore):
        self.noises.append(noise.copy())
        return super().__call__(observation, np.repeat(noise, 2, 1), progress, explore=explore)


def test_noise_is_fresh_at_every_step_and_progress_counts_what_was_stepped() -> None:
    actor = Recorder()
    episodes = make(2, 2, 150, Counter)
    episodes.next(actor, START)
    episodes.next(actor, START)
    noise = np.stack(actor.noises)[..., 0]
    assert noise.shape == (300, 2)
    assert len(np.unique(noise)) > 590  # float32: two of six hundred may be equal
    assert [p.env_steps for p in actor.seen] == list(range(0, 600, 2))


def test_an_environment_does_not_depend_on_those_beside_it() -> None:
    alone, together = cartpole(1, 2), cartpole(3, 6)
    for _ in range(3):
        one, three = alone.next(NoiseActor(), START), together.next(NoiseActor(), START)
        rows = min(len(one.valid), len(three.valid))
        for name in ("observation", "action", "reward", "next_observation", "valid", "log_prob"):
            assert torch.equal(getattr(one, name)[:rows], getattr(three, name)[:rows, :2]), name


def test_log_probabilities_and_statistics() -> None:
    episodes = cartpole(2, 4)
    batch = episodes.next(NoiseActor(), START)
    assert torch.equal(batch.log_prob, batch.observation.sum(-1) + batch.action)
    statistics = episodes.statistics(0)
    assert statistics["episode/count"] == 4
    assert statistics["episode/length"] == statistics["episode/return"] == batch.valid.sum().item() / 4
    assert episodes.statistics(0) == {}
    weight = torch.ones(4, requires_grad=True)
    (batch.observation @ weight).sum().backward()  # collected in inference mode, yet it may be learned from


@pytest.mark.parametrize("played", [0, 1, 3])
def test_resumes_between_batches(played: int, tmp_path) -> None:
    episodes, resumed = cartpole(3, 6, 90), cartpole(3, 6, 90)
    for _ in range(played):
        episodes.next(NoiseActor(), START)
    save_tree(tmp_path / "a", episodes.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    for _ in range(3):
        one, other = episodes.next(NoiseActor(), START), resumed.next(NoiseActor(), START)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert episodes.env_steps == resumed.env_steps


# ---------------------------------------------------------------------------------------------------- several seeds


def test_each_seed_has_the_batches_that_it_has_alone() -> None:
    """Of its own length, whatever vector steps them."""
    seeds = [4, 0, 9]
    together = several(2, 4, seeds, "numpy", 200)
    single = [several(2, 4, [seed], "sync", 200) for seed in seeds]
    rows = set()
    for _ in range(14):
        batches = together.next(StackedActor(3), START)
        for index, episodes in enumerate(single):
            alone = episodes.next(NoiseActor(), START)
            assert all(torch.equal(a, b) for a, b in zip(alone, batches[index], strict=True))
            assert together.env_steps_of[index] == episodes.env_steps
            assert together.statistics(index) == episodes.statistics(0) != {}
            assert together.statistics(index) == {}
            rows.add(len(alone.valid))
    assert len(rows) > 1
    assert len(set(together.env_steps_of)) == 3


def test_a_seed_at_its_end_and_a_frozen_one_play_no_more() -> None:
    episodes = several(1, 1, [0, 1, 2])
    episodes.next(StackedActor(3), START)
    end = max(episodes.env_steps_of)
    assert sorted(episodes.env_steps_of)[1] < end
    (first,) = [index for index, env_steps in enumerate(episodes.env_steps_of) if env_steps == end]
    before = list(episodes.env_steps_of)
    batches = episodes.next(StackedActor(3, frozen=first != 1), START._replace(total_env_steps=end))
    rest = {first, 1}
    assert [batch is None for batch in batches] == [index in rest for index in range(3)]
    played = [steps != was for steps, was in zip(episodes.env_steps_of, before, strict=True)]
    assert played == [index not in rest for index in range(3)]
    finished = [episodes.statistics(index)["episode/count"] for index in range(3)]
    assert finished == [1.0 if index in rest else 2.0 for index in range(3)]


def test_a_policy_that_goes_by_the_progress_of_seeds_apart_is_refused() -> None:
    class ByProgress(StackedActor):
        def __call__(self, observation, noise, progress, *, explore):
            return super().__call__(observation, noise, progress.env_steps, explore=explore)

    with pytest.raises(ConfigError, match="acts by the run's env_steps, in which seeds of whole episodes differ"):
        several(1, 1, [0, 1]).next(ByProgress(2), START)


def test_actions_that_are_no_numbers_do_not_reach_the_environments_of_several_seeds() -> None:
    """They stay in the batch: the loss and the row show them, and that seed alone is frozen."""

    class Broken(StackedActor):
        def __call__(self, observation, noise, progress, *, explore):
            return np.float32([[0.5], [np.nan]])

        def log_prob(self, observation, action, member=0):
            return action[..., 0]

    vector = make_vector("sync", "pendulum", 2, 5, seeds_beside([0, 1], 1))
    episodes = Episodes(vector, make_normaliser(vector.spec, 1, 2), Clock(), [0, 1], num_episodes=1, num_envs=1)
    good, bad = episodes.next(Broken(2), START)
    assert good.action.isfinite().all()
    assert bad.action[:5].isnan().all()
    assert bad.next_observation.isfinite().all()


@pytest.mark.parametrize("kinds", [("sync", "numpy"), ("numpy", "async"), ("async", "sync")], ids=" ".join)
def test_several_seeds_resume_on_any_vector(kinds: tuple[str, str], tmp_path) -> None:
    made = [several(2, 4, [0, 1], kind) for kind in kinds]
    episodes, resumed = made
    for _ in range(2):
        episodes.next(StackedActor(2), START)
    save_tree(tmp_path / "a", episodes.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    for _ in range(2):
        for one, other in zip(*(each.next(StackedActor(2), START) for each in made), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert episodes.env_steps_of == resumed.env_steps_of
    for each in made:
        each._vector.close()
