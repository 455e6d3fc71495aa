"""Estimators against brute force on random trajectories with ends of every kind."""

import random

import pytest

from rlexp.functional.advantages import gae, monte_carlo, n_step, one_step_td, td_lambda
from rlexp.types import Estimate
from tests.functional import oracles

NUM_CASES = 1000
TOLERANCE = 1e-10


def mismatch(estimate: Estimate, expected: list[list[float]], columns: list[oracles.Trajectory]) -> float:
    """The largest difference from the expected targets [B][T], of targets and of advantages."""
    target, advantage = estimate.value_target.T.tolist(), estimate.advantage.T.tolist()
    return max(
        max(abs(target[b][t] - wanted), abs(advantage[b][t] - (wanted - x.value[t])))
        for b, x in enumerate(columns)
        for t, wanted in enumerate(expected[b])
    )


@pytest.fixture(scope="module")
def cases() -> list[tuple[list[oracles.Trajectory], float, float, int]]:
    """Trajectories of several environments with a gamma, a lambda and an n."""
    rng = random.Random(20)
    made = []
    for _ in range(NUM_CASES):
        length, num_envs = rng.randint(1, 9), rng.randint(1, 3)
        columns = [oracles.random_trajectory(rng, length) for _ in range(num_envs)]
        gamma = rng.choice([0.0, 1.0, rng.random(), 0.9 + 0.1 * rng.random()])
        lambda_ = rng.choice([0.0, 1.0, rng.random(), rng.random()])
        made.append((columns, gamma, lambda_, rng.randint(1, 12)))
    return made


def test_the_cases_hold_every_kind_of_end(cases) -> None:
    flags = [(a, b) for columns, *_ in cases for x in columns for a, b in zip(x.terminated, x.truncated, strict=True)]
    for kind in ((0, 0), (1, 0), (0, 1), (1, 1)):
        assert flags.count(kind) > 100


def test_one_step_td(cases) -> None:
    for columns, gamma, _, _ in cases:
        expected = [[oracles.n_step_return(x, t, 1, gamma) for t in range(len(x.reward))] for x in columns]
        assert mismatch(one_step_td(*oracles.as_tensors(columns, gamma)), expected, columns) < TOLERANCE


def test_monte_carlo(cases) -> None:
    for columns, gamma, _, _ in cases:
        expected = [[oracles.full_return(x, t, gamma) for t in range(len(x.reward))] for x in columns]
        assert mismatch(monte_carlo(*oracles.as_tensors(columns, gamma)), expected, columns) < TOLERANCE


def test_n_step(cases) -> None:
    for columns, gamma, _, n in cases:
        expected = [[oracles.n_step_return(x, t, n, gamma) for t in range(len(x.reward))] for x in columns]
        assert mismatch(n_step(*oracles.as_tensors(columns, gamma), n_step=n), expected, columns) < TOLERANCE


def test_td_lambda(cases) -> None:
    for columns, gamma, lambda_, _ in cases:
        expected = [[oracles.lambda_return(x, t, gamma, lambda_) for t in range(len(x.reward))] for x in columns]
        estimate = td_lambda(*oracles.as_tensors(columns, gamma), lambda_=lambda_)
        assert mismatch(estimate, expected, columns) < TOLERANCE


def test_gae_as_a_sum_of_td_errors(cases) -> None:
    for columns, gamma, lambda_, _ in cases:
        expected = [
            [x.value[t] + oracles.summed_td_errors(x, t, gamma, lambda_) for t in range(len(x.reward))] for x in columns
        ]
        assert mismatch(gae(*oracles.as_tensors(columns, gamma), lambda_=lambda_), expected, columns) < TOLERANCE


def test_gae_as_a_mixture_of_n_step_advantages(cases) -> None:
    for columns, gamma, lambda_, _ in cases:
        expected = [[oracles.lambda_return(x, t, gamma, lambda_) for t in range(len(x.reward))] for x in columns]
        assert mismatch(gae(*oracles.as_tensors(columns, gamma), lambda_=lambda_), expected, columns) < TOLERANCE
