"""Every vector gives the numbers of SyncVector, bit for bit, and goes on from the state of every other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rlexp.envs.cartpole import CartPoleVector, is_cartpole
from rlexp.envs.vector import Vector
from rlexp.errors import EnvironmentFailure
from rlexp.streams import Stream
from tests.conftest import env_spec
from tests.envs.vectors import EPISODE_SEED, compare_steps, make_vector, through_disk

Make = Callable[..., Vector]


@pytest.fixture
def make() -> Iterator[Make]:
    """`make_vector`, started, and closed in the end."""
    made: list[Vector] = []

    def opened(*arguments, start: bool = True) -> Vector:
        made.append(make_vector(*arguments))
        if start:
            made[-1].start()
        return made[-1]

    yield opened
    for vector in made:
        vector.close()


# ------------------------------------------------------------------------------------------------------- same numbers


@pytest.mark.parametrize(("num_envs", "steps"), [(1, 3000), (3, 2000), (8, 1500)])
def test_the_numpy_cartpole_is_gymnasiums(num_envs: int, steps: int, make: Make) -> None:
    sync, arrays = (make(kind, "cartpole", num_envs) for kind in ("sync", "numpy"))
    stream, finished = Stream(num_envs, "test"), []
    for _ in range(steps // 10):
        finished += compare_steps(sync, arrays, stream, 10)
        # An observation is rounded to float32 and would hide the last bits.
        np.testing.assert_array_equal(arrays._state.T, np.stack([env.state for env in sync._envs]), strict=True)
    assert len(finished) > num_envs * steps / 40
    assert {e.env for e in finished} == set(range(num_envs))


def test_the_numpy_cartpole_truncates_as_gymnasiums_does(make: Make) -> None:
    """A time limit below the environment's own; some episodes end before it, and some at that very step."""
    vectors = [make(kind, "cartpole", 3, 12) for kind in ("sync", "numpy")]
    lengths = [e.length for e in compare_steps(*vectors, Stream(0, "test"), 600)]
    assert lengths.count(12) > 20
    assert min(lengths) < 12


def test_balanced_poles_reach_the_whole_time_limit(make: Make) -> None:
    one, other = (make(kind, "cartpole", 2) for kind in ("sync", "numpy"))
    for _ in range(1010):
        actions = (one.observation @ np.float32([0.02, 0.1, 1, 0.3]) > 0).astype(np.int64)
        for a, b in zip(one.step(actions), other.step(actions), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    assert [e.length for e in one.finished] == [500] * 4
    assert other.finished == one.finished


@pytest.mark.parametrize(
    ("name", "num_envs", "time_limit"),
    [("cartpole", 1, None), ("cartpole", 5, None), ("pendulum", 3, 20), ("frozen_lake", 2, None)],
)
def test_the_asynchronous_vector_is_the_synchronous_one(
    name: str, num_envs: int, time_limit: int | None, make: Make
) -> None:
    vectors = [make(kind, name, num_envs, time_limit) for kind in ("sync", "async")]
    assert len(compare_steps(*vectors, Stream(0, "test"), 150)) > num_envs


# ------------------------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize(("kind", "name"), [("numpy", "cartpole"), ("async", "cartpole"), ("async", "pendulum")])
@pytest.mark.parametrize("share", [0.1, 0.8])
def test_environments_that_wait_stay_as_they_are(kind: str, name: str, share: float, make: Make) -> None:
    """Also some that were never stepped, and steps of none at all."""
    vectors = [make(which, name, 5, 9) for which in ("sync", kind)]
    assert len(compare_steps(*vectors, Stream(0, "test"), 100, share)) > 20 * share
    np.testing.assert_equal(vectors[0].state_dict(), vectors[1].state_dict())
    assert len(compare_steps(*vectors, Stream(1, "test"), 30)) > 10


@pytest.mark.parametrize("kind", ["sync", "numpy", "async"])
def test_one_that_waits_has_the_numbers_of_one_that_does_not(kind: str, make: Make) -> None:
    waits, steps = (make(kind, "cartpole", 2) for _ in range(2))
    stream, counts = Stream(0, "test"), np.zeros(2, np.int64)
    actions = stream.integers(2, 60, 2)
    seen = [steps.observation.copy()]
    for row in actions:
        steps.step(row)
        seen.append(steps.observation.copy())
    while (counts < 60).any():
        active = (counts < 60) & (stream.uniform(2) < 0.5)
        waits.step(actions[np.minimum(counts, 59), [0, 1]], active)
        counts += active
        np.testing.assert_array_equal(waits.observation, [seen[counts[i]][i] for i in range(2)])
    np.testing.assert_equal(waits.state_dict()["episodes"], steps.state_dict()["episodes"])
    assert sorted(waits.finished) == sorted(steps.finished)
    ours, others = waits.drain_finished(range(1)), waits.drain_finished()
    assert {e.env for e in ours} == {0}
    assert {e.env for e in others} == {1}
    assert waits.drain_finished() == []


def test_what_the_waiting_would_do_does_not_matter(make: Make) -> None:
    """Not even where it is no action; what the others do does."""
    for kind in ("sync", "numpy", "async"):
        vector = make(kind, "cartpole", 2)
        vector.step(np.array([1, 7]), np.array([True, False]))
        assert vector.time.tolist() == [1, 0]
        with pytest.raises(EnvironmentFailure):
            vector.step(np.array([1, 7]), np.array([False, True]))


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_each_vector_goes_on_from_each_others_state(num_envs: int, share: float, make: Make, tmp_path: Path) -> None:
    undisturbed, vector = (make("sync", "cartpole", num_envs) for _ in range(2))
    stream = Stream(0, "test")
    for stage, kind in enumerate(["numpy", "numpy", "async", "async", "numpy", "sync", "async", "sync", "sync"]):
        compare_steps(undisturbed, vector, stream, 33, share)
        saved = vector.state_dict()
        np.testing.assert_equal(saved, undisturbed.state_dict())  # one form, the same types
        vector = make(kind, "cartpole", num_envs, start=False)
        vector.load_state_dict(through_disk(tmp_path / str(stage), saved))
        vector.start()  # must not begin anew
        assert vector.inexact == []
        np.testing.assert_equal(vector.state_dict(), saved)
    compare_steps(undisturbed, vector, stream, 33, share)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_ring_of_actions_goes_round(share: float, make: Make, tmp_path: Path) -> None:
    """Many times, with a state saved at each place of a short ring."""
    one, other = (make(kind, "cartpole", 3, 9) for kind in ("sync", "numpy"))
    stream = Stream(0, "test")
    for place in range(40):
        compare_steps(one, other, stream, 1, share)
        np.testing.assert_equal(one.state_dict(), other.state_dict())
        resumed = make("numpy", "cartpole", 3, 9, start=False)
        resumed.load_state_dict(through_disk(tmp_path / str(place), other.state_dict()))
        other = resumed


@pytest.mark.parametrize("kind", ["numpy", "async"])
def test_finished_episodes_are_kept_and_a_vector_saved_before_its_start_starts(kind: str, make: Make) -> None:
    vector, fresh = make(kind, "cartpole", 3, start=False), make("sync", "cartpole", 3)
    np.testing.assert_equal(vector.state_dict(), make("sync", "cartpole", 3, start=False).state_dict())
    resumed = make("sync", "cartpole", 3, start=False)
    resumed.load_state_dict(vector.state_dict())
    for each in (resumed, vector):
        each.start()
        np.testing.assert_array_equal(each.observation, fresh.observation)
    for _ in range(40):
        vector.step(np.ones(3, np.int64))
    resumed = make(kind, "cartpole", 3, start=False)
    resumed.load_state_dict(vector.state_dict())
    assert len(resumed.finished) > 5
    assert resumed.finished == vector.drain_finished()


@pytest.mark.parametrize("kind", ["numpy", "async"])
def test_an_episode_that_does_not_come_out_the_same_is_named(kind: str, make: Make) -> None:
    """Another observation at the end, or an end on the way: the next episode begins, as in SyncVector."""
    vector, stream = make("sync", "cartpole", 4), Stream(0, "test")
    compare_steps(vector, make("sync", "cartpole", 4), stream, 25)
    state = vector.state_dict()
    state["observation"][1, 2] += 1e-6
    state["episodes"][3]["actions"] = np.ones(40, np.int64)
    resumed = [make(which, "cartpole", 4, start=False) for which in ("sync", kind)]
    for each in resumed:
        each.load_state_dict(state)
        assert each.inexact == [1, 3]
        assert each.time[[1, 3]].tolist() == [0, 0]
    np.testing.assert_array_equal(resumed[0].observation, resumed[1].observation)
    assert len(compare_steps(*resumed, stream, 80)) > 4


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("actions", [[0, 2], [-1, 0], [0, 1, 1]])
def test_the_numpy_cartpole_takes_0_and_1(actions: list[int]) -> None:
    vector = CartPoleVector(env_spec("cartpole"), 2, EPISODE_SEED)
    vector.start()
    with pytest.raises(EnvironmentFailure, match="takes 2 actions 0 or 1"):
        vector.step(np.array(actions))


def test_only_gymnasiums_cartpole_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    assert is_cartpole("CartPole-v1", {})
    assert not is_cartpole("CartPole-v1", {"sutton_barto_reward": True})
    assert not is_cartpole("CartPole-v0", {})
    assert not is_cartpole("Acrobot-v1", {})
    monkeypatch.setattr(gymnasium.spec("CartPole-v1"), "entry_point", "my_package:CartPole")
    assert not is_cartpole("CartPole-v1", {})
