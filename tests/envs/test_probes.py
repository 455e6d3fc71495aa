"""The probe environments themselves: their rewards and lengths, by hand."""

import gymnasium
import numpy as np
import pytest

from rlexp.envs.make import make_env
from rlexp.envs.probes import IDS


def episode(number: int, action: int, seed: int) -> tuple[list[float], list[float], bool]:
    """Observations, rewards, and whether it terminated, taking one action throughout."""
    env = make_env(IDS[number], {})
    observation = env.reset(seed=seed)[0]
    observations, rewards = [observation.item()], []
    for _ in range(10):
        observation, reward, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(observation)
        observations.append(observation.item())
        rewards.append(reward)
        assert not truncated
        if terminated:
            return observations, rewards, True
    return observations, rewards, False


@pytest.mark.parametrize("action", [0, 1])
def test_1_constant_reward(action: int) -> None:
    assert episode(1, action, 0) == ([0, 0], [1], True)


@pytest.mark.parametrize("action", [0, 1])
def test_2_reward_is_the_observation(action: int) -> None:
    for seed in range(20):
        observations, rewards, ended = episode(2, action, seed)
        assert ended
        assert rewards == [observations[0]]


@pytest.mark.parametrize("action", [0, 1])
def test_3_reward_after_two_steps(action: int) -> None:
    assert episode(3, action, 0) == ([0, 1, 1], [0, 1], True)


def test_4_reward_of_the_action() -> None:
    assert episode(4, 0, 0) == ([0, 0], [-1], True)
    assert episode(4, 1, 0) == ([0, 0], [1], True)


def test_5_reward_of_the_action_in_its_observation() -> None:
    for seed in range(20):
        for action, sign in ((0, -1.0), (1, 1.0)):
            observations, rewards, ended = episode(5, action, seed)
            assert ended
            assert rewards == [sign * observations[0]]


def test_continuous_actions() -> None:
    for number, sign in ((4, 1.0), (5, None)):
        env = make_env(IDS[number], {"continuous": True})
        assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        for action in (-1.0, -0.25, 0.5):
            observation = env.reset(seed=3)[0].item()
            reward, terminated = env.step(np.array([action], np.float32))[1:3]
            assert (reward, terminated) == (action * (sign or observation), True)


@pytest.mark.parametrize("number", [2, 5])
def test_both_observations_come_as_often(number: int) -> None:
    env = make_env(IDS[number], {})
    first = [env.reset(seed=seed)[0].item() for seed in range(1000)]
    assert set(first) == {-1.0, 1.0}
    assert abs(np.mean(first)) < 4 / 1000**0.5
