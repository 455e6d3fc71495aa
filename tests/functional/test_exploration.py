"""Epsilon-greedy: how often it does what, and the entropy of that."""

import functools

import pytest
import torch
from torch import distributions

from rlexp.functional.exploration import EpsilonGreedy
from rlexp.functional.schedules import constant, linear
from rlexp.streams import Stream
from rlexp.types import Noise

COUNT = 200_000


def greedy_with(epsilon: float) -> EpsilonGreedy:
    return EpsilonGreedy(epsilon=functools.partial(constant, value=epsilon))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_frequencies(epsilon: float, progress) -> None:
    q_value = torch.tensor([0.0, -1.0, 2.0, 1.0])
    explore = greedy_with(epsilon)
    assert explore.noise == Noise("uniform", 2)
    noise = torch.from_numpy(Stream(0, "test").noise(explore.noise, COUNT))
    action = explore(q_value.expand(COUNT, 4), noise, progress())
    expected = torch.full((4,), epsilon / 4)
    expected[2] += 1 - epsilon
    frequency = torch.bincount(action, minlength=4) / COUNT
    assert ((frequency - expected).abs() <= 4 * (expected * (1 - expected) / COUNT).sqrt()).all(), frequency


def test_each_row_has_its_own_greedy_action(progress) -> None:
    q_value = torch.eye(5)
    noise = torch.from_numpy(Stream(1, "test").uniform(5, 2))
    assert greedy_with(0.0)(q_value, noise, progress()).tolist() == [0, 1, 2, 3, 4]


def test_the_largest_uniform_number_is_an_action(progress) -> None:
    largest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    for num_actions in (2, 3, 7, 1000):
        noise = torch.stack([largest, torch.tensor(0.0)])
        action = greedy_with(1.0)(torch.zeros(num_actions), noise, progress())
        assert action.item() == num_actions - 1


def test_epsilon_follows_its_schedule(progress) -> None:
    explore = EpsilonGreedy(epsilon=functools.partial(linear, start=1.0, end=0.0, fraction=0.5))
    q_value, noise = torch.tensor([1.0, 0.0]), torch.tensor([0.9, 0.4])  # explores while epsilon > 0.4
    taken = [explore(q_value, noise, progress(env_steps)).item() for env_steps in (0, 250, 290, 310, 500, 1000)]
    assert taken == [1, 1, 1, 0, 0, 0]
    assert explore.metrics(2, progress(250))["exploration/epsilon"] == pytest.approx(0.5)


@pytest.mark.parametrize("num_actions", [1, 2, 4, 18])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5, 1.0])
def test_entropy_of_the_behaviour_policy(epsilon: float, num_actions: int, progress) -> None:
    probs = torch.full((num_actions,), epsilon / num_actions, dtype=torch.float64)
    probs[0] += 1 - epsilon
    expected = distributions.Categorical(probs=probs).entropy().item()
    entropy = greedy_with(epsilon).metrics(num_actions, progress())["policy/entropy"]
    assert entropy == pytest.approx(expected, abs=1e-12)
    assert str(entropy)[0] != "-"  # a negative zero would be shown as one
