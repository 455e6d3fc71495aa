"""A vector that is saved in the middle of episodes goes on exactly, by playing them again."""

import functools
from pathlib import Path

import numpy as np
import pytest

from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.errors import EnvironmentFailure
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.streams import Stream, derive_seed
from tests.conftest import env_choices, env_spec
from tests.envs.toys import Counter, counter_spec, simple_seed

NUM_ENVS = 2


def make(name: str, time_limit: int | None = None) -> SyncVector:
    spec = env_spec(name, time_limit)
    return SyncVector(
        functools.partial(make_env, spec.id, {}), spec, NUM_ENVS, functools.partial(derive_seed, 3, "environment")
    )


def play(vector: SyncVector, stream: Stream, steps: int) -> list[np.ndarray]:
    """Random actions; everything that comes back, and the finished episodes."""
    action = vector.spec.action
    trace = []
    for _ in range(steps):
        drawn = (
            stream.integers(action.n, NUM_ENVS) if action.kind == "discrete" else stream.normal(NUM_ENVS, *action.shape)
        )
        trace += [vector.observation.copy(), vector.time.copy(), *(x.copy() for x in vector.step(drawn))]
    trace.append(np.array([tuple(e) for e in vector.drain_finished()]))
    return trace


def through_disk(path: Path, state: dict) -> dict:
    save_tree(path, state)
    return load_tree(path)


@pytest.mark.parametrize("time_limit", [None, 14], ids=["first episodes", "later episodes"])
@pytest.mark.parametrize("name", env_choices())
def test_continues_bit_for_bit_in_the_middle_of_episodes(name: str, time_limit: int | None, tmp_path) -> None:
    """Also where the saved vector's environments had episodes before, and those that play them again have not."""
    vector, stream, steps = make(name, time_limit), Stream(0, "test"), 150 if time_limit is None else 30
    vector.start()
    play(vector, stream, 37)
    saved, position = through_disk(tmp_path / "a", vector.state_dict()), stream.counter
    expected = play(vector, stream, steps)
    resumed, stream.counter = make(name, time_limit), position
    resumed.load_state_dict(saved)
    resumed.start()  # must not begin anew
    assert resumed.inexact == []
    for one, other in zip(expected, play(resumed, stream, steps), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_a_resumed_vector_can_be_saved_and_resumed_within_the_same_episodes(tmp_path) -> None:
    vector, stream = make("pendulum"), Stream(0, "test")
    vector.start()
    play(vector, stream, 20)
    for part in range(3):
        resumed = make("pendulum")
        resumed.load_state_dict(through_disk(tmp_path / str(part), vector.state_dict()))
        assert resumed.inexact == []
        position = stream.counter
        expected = play(vector, stream, 20)
        stream.counter = position
        for one, other in zip(expected, play(resumed, stream, 20), strict=True):
            np.testing.assert_array_equal(one, other)
        vector = resumed


def test_the_saved_state_is_a_snapshot_and_saving_changes_nothing(tmp_path) -> None:
    vector, undisturbed = make("cartpole"), make("cartpole")
    one, other = Stream(0, "test"), Stream(0, "test")
    for each in (vector, undisturbed):
        each.start()
    play(vector, one, 13)
    play(undisturbed, other, 13)
    state = vector.state_dict()
    first = through_disk(tmp_path / "a", state)
    trace = play(vector, one, 20)
    second = through_disk(tmp_path / "b", state)
    np.testing.assert_equal(first, second)
    for a, b in zip(trace, play(undisturbed, other, 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_episodes_that_were_not_reported_are_kept(tmp_path) -> None:
    vector = make("cartpole")
    vector.start()
    for _ in range(60):
        vector.step(np.ones(NUM_ENVS, np.int64))
    resumed = make("cartpole")
    resumed.load_state_dict(through_disk(tmp_path / "a", vector.state_dict()))
    episodes = vector.drain_finished()
    assert len(episodes) > 2
    assert resumed.drain_finished() == episodes


def test_a_vector_saved_before_its_start_starts(tmp_path) -> None:
    vector, fresh = make("cartpole"), make("cartpole")
    resumed = make("cartpole")
    resumed.load_state_dict(through_disk(tmp_path / "a", vector.state_dict()))
    for each in (resumed, fresh):
        each.start()
    np.testing.assert_array_equal(resumed.observation, fresh.observation)


def test_an_environment_that_does_not_repeat_itself_is_named_and_begins_its_next_episode(tmp_path) -> None:
    class Forgetful(Counter):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Forgetful.made += 1
            self.shift = 1 if Forgetful.made == 4 else 0  # the second environment of the second vector

        def step(self, action):
            observation, *rest = super().step(action)
            return observation + self.shift, *rest

    vectors = [SyncVector(Forgetful, counter_spec(50), NUM_ENVS, simple_seed) for _ in range(2)]
    vectors[0].start()
    for _ in range(5):
        vectors[0].step(np.zeros(NUM_ENVS, np.int64))
    vectors[1].load_state_dict(through_disk(tmp_path / "a", vectors[0].state_dict()))
    assert vectors[1].inexact == [1]
    assert vectors[1].observation.tolist() == [[0, 5], [101, 0]]
    assert vectors[1].time.tolist() == [5, 0]
    vectors[1].step(np.zeros(NUM_ENVS, np.int64))
    assert vectors[1].time.tolist() == [6, 1]


def test_an_environment_that_raises_while_its_episode_is_played_again_is_named(tmp_path) -> None:
    class Brittle(Counter):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Brittle.made += 1
            self.breaks = Brittle.made == 4

        def step(self, action):
            if self.breaks:
                raise RuntimeError("the motor is hot")
            return super().step(action)

    vectors = [SyncVector(Brittle, counter_spec(50), NUM_ENVS, simple_seed) for _ in range(2)]
    vectors[0].start()
    for _ in range(5):
        vectors[0].step(np.zeros(NUM_ENVS, np.int64))
    with pytest.raises(EnvironmentFailure, match="RuntimeError: the motor is hot; environment 1, episode seed"):
        vectors[1].load_state_dict(through_disk(tmp_path / "a", vectors[0].state_dict()))


def test_what_was_not_finite_in_an_open_episode_is_found_after_resuming(tmp_path) -> None:
    vectors = [SyncVector(lambda: Counter(blind_at=3), counter_spec(50), NUM_ENVS, simple_seed) for _ in range(2)]
    vectors[0].start()
    for _ in range(5):
        vectors[0].step(np.zeros(NUM_ENVS, np.int64))
    vectors[1].load_state_dict(through_disk(tmp_path / "a", vectors[0].state_dict()))
    found = [vector.not_finite() for vector in vectors]
    assert [(each.env, each.what) for each in found[1]] == [(i, "observation[1] is nan") for i in range(NUM_ENVS)]
    assert found[1] == found[0]
