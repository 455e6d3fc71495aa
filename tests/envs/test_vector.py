"""The vector against plain Gymnasium, and its own rules about ends, seeds, failures and actions."""

import functools
import math

import gymnasium
import numpy as np
import pytest

from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import check_finite
from rlexp.errors import EnvironmentFailure, NonFiniteError
from rlexp.streams import Stream, derive_seed
from rlexp.types import Box
from tests.conftest import env_spec
from tests.envs.toys import Counter, Faulty, counter_spec, simple_seed


def counters(num_envs: int, time_limit: int, **settings) -> SyncVector:
    vector = SyncVector(lambda: Counter(**settings), counter_spec(time_limit), num_envs, simple_seed)
    vector.start()
    return vector


def play(vector: SyncVector, steps: int) -> None:
    """A segment as the collector takes it: steps, then the check."""
    step(vector, steps)
    check_finite(vector)


def step(vector: SyncVector, steps: int) -> None:
    for _ in range(steps):
        vector.step(np.zeros(vector.num_envs, np.int64))


def random_actions(spec, stream: Stream, num_envs: int) -> np.ndarray:
    if spec.action.kind == "discrete":
        return stream.integers(spec.action.n, num_envs)
    return 1.5 * stream.normal(num_envs, *spec.action.shape)


# ------------------------------------------------------------------------------------------------- against Gymnasium


@pytest.mark.parametrize(
    ("name", "time_limit", "steps"),
    [
        ("cartpole", 500, 300),
        ("cartpole", 11, 100),
        ("pendulum", 200, 450),
        ("frozen_lake", 100, 400),
        ("acrobot", 60, 150),
    ],
)
def test_equals_plain_gymnasium(name: str, time_limit: int, steps: int) -> None:
    """Same seeds, same actions: rewards, flags, true successors, and the observation that follows."""
    spec, num_envs = env_spec(name, time_limit), 3
    seed_of = functools.partial(derive_seed, 5, "environment")
    vector = SyncVector(functools.partial(make_env, spec.id, {}), spec, num_envs, seed_of)
    vector.start()
    plain = [gymnasium.make(spec.id, max_episode_steps=time_limit) for _ in range(num_envs)]
    observation = [env.reset(seed=seed_of(i, 0))[0] for i, env in enumerate(plain)]
    episode, time, total = [0] * num_envs, [0] * num_envs, [0.0] * num_envs
    finished, ends = [], {"terminated": 0, "truncated": 0}
    stream = Stream(0, "test")
    for _ in range(steps):
        np.testing.assert_array_equal(vector.observation, np.stack(observation))
        assert vector.time.tolist() == time
        actions = random_actions(spec, stream, num_envs)
        step = vector.step(actions)
        for i, env in enumerate(plain):
            action = (
                actions[i] if spec.action.kind == "discrete" else np.clip(actions[i], spec.action.low, spec.action.high)
            )
            observation[i], reward, terminated, truncated, _ = env.step(action)
            assert step.reward[i] == np.float32(reward)
            assert step.terminated[i] == terminated
            assert step.truncated[i] == (truncated and not terminated)
            np.testing.assert_array_equal(step.successor[i], observation[i])
            time[i] += 1
            total[i] += float(reward)
            if terminated or truncated:
                ends["terminated" if terminated else "truncated"] += 1
                finished.append((i, episode[i], seed_of(i, episode[i]), total[i], time[i]))
                episode[i], time[i], total[i] = episode[i] + 1, 0, 0.0
                observation[i] = env.reset(seed=seed_of(i, episode[i]))[0]
    assert sum(ends.values()) > 2
    drained = vector.drain_finished()
    assert [(*e[:3], e.length) for e in drained] == [(*f[:3], f[4]) for f in finished]
    np.testing.assert_allclose([e.episode_return for e in drained], [f[3] for f in finished], rtol=1e-9)
    assert vector.drain_finished() == []
    vector.close()


# ---------------------------------------------------------------------------------------------------------------- ends


def test_the_time_limit_truncates_and_the_successor_is_the_true_one() -> None:
    vector = counters(1, 3)
    for t, cut in enumerate([0, 0, 1, 0, 0, 1]):
        assert vector.observation.tolist() == [[t // 3, t % 3]]
        step = vector.step(np.zeros(1, np.int64))
        assert (step.terminated.tolist(), step.truncated.tolist()) == ([0], [cut])
        assert step.successor.tolist() == [[t // 3, t % 3 + 1]]  # step 3 of this episode, not step 0 of the next
    assert vector.observation.tolist() == [[2, 0]]


def test_an_end_at_the_time_limit_is_an_end() -> None:
    """Both at once: nothing lies beyond a terminal state, so there is nothing to bootstrap from."""
    vector = counters(1, 3, ends_after=3)
    for ended in (0, 0, 1):
        step = vector.step(np.zeros(1, np.int64))
        assert (step.terminated.tolist(), step.truncated.tolist()) == ([ended], [0])
    both = counters(1, 100, ends_after=2, cuts_after=2)
    both.step(np.zeros(1, np.int64))
    step = both.step(np.zeros(1, np.int64))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([1], [0])


def test_an_environment_may_truncate_itself() -> None:
    vector = counters(1, 100, cuts_after=2)
    vector.step(np.zeros(1, np.int64))
    step = vector.step(np.zeros(1, np.int64))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([0], [1])
    assert [e.length for e in vector.finished] == [2]


def test_finished_episodes() -> None:
    vector = counters(2, 3)
    for _ in range(7):
        vector.step(np.zeros(2, np.int64))
    assert [tuple(e) for e in vector.drain_finished()] == [
        (0, 0, 0, 3.0, 3), (1, 0, 100, 3.0, 3), (0, 1, 1, 3.0, 3), (1, 1, 101, 3.0, 3),
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- seeds


def test_episodes_do_not_depend_on_the_number_of_environments() -> None:
    spec = env_spec("cartpole")
    seed_of = functools.partial(derive_seed, 0, "environment")
    seen = []
    for num_envs in (1, 4):
        vector = SyncVector(functools.partial(make_env, spec.id, {}), spec, num_envs, seed_of)
        vector.start()
        trace = []
        for t in range(120):
            trace.append(vector.observation[0].copy())
            vector.step(np.full(num_envs, (t // 3) % 2))
        seen.append((np.stack(trace), [e.seed for e in vector.finished if e.env == 0]))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1]
    assert len(set(seen[0][1])) > 1


def test_starting_twice_is_starting_once() -> None:
    vector = counters(1, 10)
    vector.step(np.zeros(1, np.int64))
    vector.start()
    assert vector.observation.tolist() == [[0, 1]]


# ------------------------------------------------------------------------------------------------------------- failures


def test_an_environment_that_raises_is_named() -> None:
    class Failing(Counter):
        def step(self, action):
            if self.seed == 101 and self.time == 2:
                raise RuntimeError("the motor is hot")
            return super().step(action)

    vector = SyncVector(Failing, counter_spec(3), 3, simple_seed)
    vector.start()
    with pytest.raises(EnvironmentFailure) as caught:
        play(vector, 10)
    for part in ("Counter", "RuntimeError: the motor is hot", "environment 1,", "seed 101,", "step 2;"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 3


def test_an_environment_that_raises_in_its_first_reset_is_named() -> None:
    vector = SyncVector(lambda: Faulty("raise", 200, where="reset"), counter_spec(3), 3, simple_seed)
    with pytest.raises(EnvironmentFailure, match="Awkward: the motor is hot; environment 2, episode seed 200, step 0;"):
        vector.start()


def test_an_environment_that_cannot_be_made_is_named() -> None:
    def make():
        raise FileNotFoundError("no assets")

    with pytest.raises(EnvironmentFailure, match="Counter could not be made: FileNotFoundError: no assets"):
        SyncVector(make, counter_spec(3), 2, simple_seed)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_a_reward_that_is_no_number_is_found(reward: float, at: int) -> None:
    """At the latest when the segment is checked, also where its episode ended before that."""
    vector = counters(2, 5, rewards={at: reward})
    with pytest.raises(NonFiniteError, match=r"Counter: .*environment 0, episode seed [01], ") as caught:
        play(vector, 8)
    assert caught.value.code == 4


@pytest.mark.parametrize("at", [3, 5])
def test_an_observation_that_is_no_number_is_found(at: int) -> None:
    """Step 3 of the running episode, and the successor of an episode's last step, which no later step shows."""
    vector = counters(1, 5, blind_at=at)
    play(vector, at - 1)
    with pytest.raises(NonFiniteError, match="environment 0, episode seed 0"):
        play(vector, 1)


def test_what_is_no_number_is_known_of_each_environment_as_it_was_first_seen() -> None:
    vector = counters(2, 5, rewards={3: math.nan})
    step(vector, 3)
    assert vector.not_finite() == []
    step(vector, 1)
    first = vector.not_finite()
    assert [(found.env, found.step) for found in first] == [(0, 4), (1, 4)]
    assert [found.seed for found in first] == [simple_seed(0, 0), simple_seed(1, 0)]
    step(vector, 5)
    assert vector.not_finite() == first


@pytest.mark.parametrize("constant", [0.0, 1.0, -300.0])
def test_a_number_that_never_changes_may_be_rounded(constant: float) -> None:
    class Constant(Counter):
        observation_space = gymnasium.spaces.Box(np.float32([0, constant]), np.float32([np.inf, constant]))
        off = 0.0

        def _observation(self) -> np.ndarray:
            return np.array([self.time, constant + self.off], np.float32)

    vector = SyncVector(Constant, counter_spec(5), 1, simple_seed)
    vector.start()
    for Constant.off in (1e-7, -1e-7, -1e-4 * constant):
        play(vector, 1)
    Constant.off = 1.0
    with pytest.raises(EnvironmentFailure, match=r"observation\[1\] is .*, far outside the space"):
        play(vector, 1)


def test_finite_numbers_pass() -> None:
    play(counters(2, 5), 12)


# -------------------------------------------------------------------------------------------------------------- actions


def test_real_actions_are_clipped_to_the_bounds_and_integers_are_python_integers() -> None:
    spec = counter_spec(100, Box((2,), -2.0, 0.5))
    vector = SyncVector(Counter, spec, 2, simple_seed)
    vector.start()
    given = np.array([[-7.0, 0.25], [3.0, -2.0]], np.float32)
    copy = given.copy()
    vector.step(given)
    assert [env.actions[0].tolist() for env in vector._envs] == [[-2.0, 0.25], [0.5, -2.0]]
    np.testing.assert_array_equal(given, copy)
    vector = counters(2, 100)
    vector.step(np.array([1, 0]))
    assert [(env.actions, type(env.actions[0])) for env in vector._envs] == [([1], int), ([0], int)]


def test_an_unbounded_action_space_clips_nothing() -> None:
    vector = SyncVector(Counter, counter_spec(100, Box((1,))), 1, simple_seed)
    vector.start()
    vector.step(np.array([[1e6]], np.float32))
    assert vector._envs[0].actions[0].tolist() == [1e6]


def test_the_wrong_number_of_actions_is_refused() -> None:
    vector = counters(2, 100)
    with pytest.raises(EnvironmentFailure):
        vector.step(np.zeros(3, np.int64))


def test_environments_that_are_not_active_stay_as_they_are() -> None:
    vector = counters(3, 100, ends_after=3)
    play(vector, 1)
    for _ in range(4):
        reward = vector.step(np.zeros(3, np.int64), [True, False, True]).reward.copy()
    assert vector.time.tolist() == [2, 1, 2]
    assert vector.observation.tolist() == [[1, 2], [100, 1], [201, 2]]
    assert reward.tolist() == [1, 0, 1]
    assert [(e.env, e.index, e.length) for e in vector.drain_finished()] == [(0, 0, 3), (2, 0, 3)]
    play(vector, 1)
    assert vector.time.tolist() == [0, 2, 0]
