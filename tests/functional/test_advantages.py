"""Estimators: numbers by hand, relations among them, and chains whose values are known."""

import random
from functools import partial

import pytest
import torch
from torch import Tensor

from rlexp.functional import advantages
from rlexp.functional.advantages import gae, monte_carlo, n_step, one_step_td, td_lambda
from tests.functional.oracles import as_tensors, random_trajectory

ALL = {
    "monte_carlo": monte_carlo,
    "one_step_td": one_step_td,
    "n_step": partial(n_step, n_step=2),
    "gae": partial(gae, lambda_=0.5),
    "td_lambda": partial(td_lambda, lambda_=0.5),
}
every_estimator = pytest.mark.parametrize("estimator", ALL.values(), ids=ALL.keys())


def column(*numbers: float) -> Tensor:
    """[T, 1] in double precision."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(-1)


REWARD, VALUE, GAMMA = column(1, 2, 4), column(2, 4, 6), 0.5
# Worked by hand with gamma = lambda = 1/2 and n = 2, from the definitions. V(s') is 4, 6, 8 where the episode goes on,
# and 10 where it is cut or ends in the middle row.
BY_HAND = {
    "no end": {
        "monte_carlo": (4, 6, 8),
        "one_step_td": (3, 5, 8),
        "n_step": (3.5, 6, 8),
        "gae": (3.375, 5.5, 8),
        "td_lambda": (3.375, 5.5, 8),
    },
    "truncated in the middle": {
        "monte_carlo": (4.5, 7, 8),
        "one_step_td": (3, 7, 8),
        "n_step": (4.5, 7, 8),
        "gae": (3.75, 7, 8),
        "td_lambda": (3.75, 7, 8),
    },
    "terminated in the middle": {
        "monte_carlo": (2, 2, 8),
        "one_step_td": (3, 2, 8),
        "n_step": (2, 2, 8),
        "gae": (2.5, 2, 8),
        "td_lambda": (2.5, 2, 8),
    },
}


@pytest.mark.parametrize("ending", BY_HAND)
@pytest.mark.parametrize("name", ALL)
def test_numbers_by_hand(ending: str, name: str) -> None:
    done = column(0, 0, 0) if ending == "no end" else column(0, 1, 0)
    terminated = done if ending.startswith("terminated") else column(0, 0, 0)
    next_value = column(4, 6, 8) if ending == "no end" else column(4, 10, 8)
    advantage, target = ALL[name](REWARD, GAMMA * (1 - terminated), VALUE, next_value, done, torch.zeros_like(VALUE))
    expected = column(*BY_HAND[ending][name])
    torch.testing.assert_close(target, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(advantage, expected - VALUE, rtol=0, atol=1e-12)


def chain(length: int, horizon: int, gamma: float, *, terminates: bool) -> tuple[Tensor, ...]:
    """Reward 1 for ever, in episodes of `horizon` steps that end or are cut, with exact values.

    Cut: the chain is infinite, V = 1 / (1 - gamma) everywhere, the true successor of a cut included. Ending: the value
    is that of the steps that remain; behind an end stands a huge number that must not be read.
    """
    time = torch.arange(length, dtype=torch.float64) % horizon
    last = (time == horizon - 1).double()
    if terminates:
        value, next_value = ((1 - gamma ** (horizon - steps)) / (1 - gamma) for steps in (time, time + 1))
        next_value = torch.where(last > 0, 1e6, next_value)
    else:
        value = next_value = torch.full((length,), 1 / (1 - gamma), dtype=torch.float64)
    discount = gamma * (1 - last) if terminates else gamma * torch.ones_like(last)
    columns = (torch.ones_like(last), discount, value, next_value, last, torch.zeros_like(last))
    return tuple(x.unsqueeze(-1) for x in columns)


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("length", [23, 20, 3], ids=["ends inside an episode", "ends with one", "never reaches an end"])
@every_estimator
def test_exact_values_have_no_advantage(estimator, length: int, terminates: bool) -> None:
    inputs = chain(length, 5, 0.9, terminates=terminates)
    advantage, target = estimator(*inputs)
    torch.testing.assert_close(advantage, torch.zeros_like(advantage), rtol=0, atol=1e-12)
    torch.testing.assert_close(target, inputs[2], rtol=0, atol=1e-12)


def test_monte_carlo_corrects_wrong_values_of_a_chain_that_ends() -> None:
    reward, discount, exact, next_value, done, log_rho = chain(20, 5, 0.9, terminates=True)
    wrong = torch.full_like(exact, -7.0)
    _, target = monte_carlo(reward, discount, wrong, next_value, done, log_rho)
    torch.testing.assert_close(target, exact, rtol=0, atol=1e-12)


def random_inputs(seed: int, length: int = 17, num_envs: int = 5, gamma: float = 0.9) -> tuple[Tensor, ...]:
    rng = random.Random(seed)
    return as_tensors([random_trajectory(rng, length) for _ in range(num_envs)], gamma)


RELATIONS = {
    "gae, lambda 0: one-step TD": (partial(gae, lambda_=0.0), one_step_td),
    "gae, lambda 1: Monte Carlo": (partial(gae, lambda_=1.0), monte_carlo),
    "TD(0): one-step TD": (partial(td_lambda, lambda_=0.0), one_step_td),
    "TD(1): Monte Carlo": (partial(td_lambda, lambda_=1.0), monte_carlo),
    "TD(lambda): gae": (partial(td_lambda, lambda_=0.8), partial(gae, lambda_=0.8)),
    "n = 1: one-step TD": (partial(n_step, n_step=1), one_step_td),
    "n = T: Monte Carlo": (partial(n_step, n_step=17), monte_carlo),
    "n > T: Monte Carlo": (partial(n_step, n_step=400), monte_carlo),
}


@pytest.mark.parametrize("pair", RELATIONS.values(), ids=RELATIONS.keys())
def test_relations(pair) -> None:
    for seed in range(20):
        inputs = random_inputs(seed)
        left, right = (estimator(*inputs) for estimator in pair)
        torch.testing.assert_close(left.advantage, right.advantage, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(left.value_target, right.value_target, rtol=1e-11, atol=1e-11)


@every_estimator
def test_what_follows_an_end_does_not_reach_back(estimator) -> None:
    inputs = [x.clone() for x in random_inputs(3)]
    inputs[4][8] = 1.0  # cut
    before = estimator(*inputs)
    for position in (0, 2, 3):  # reward, value, next_value of the episodes after it
        inputs[position][9:] += 100.0
    after = estimator(*inputs)
    assert torch.equal(before.value_target[:9], after.value_target[:9])
    assert not torch.equal(before.value_target[9:], after.value_target[9:])


@every_estimator
def test_seeds_are_only_another_dim(estimator) -> None:
    seeds = [tuple(x.float() for x in random_inputs(seed)) for seed in range(4)]
    stacked = estimator(*(torch.stack(x, 1) for x in zip(*seeds, strict=True)))
    for s, inputs in enumerate(seeds):
        alone = estimator(*inputs)
        assert torch.equal(stacked.advantage[:, s], alone.advantage)
        assert torch.equal(stacked.value_target[:, s], alone.value_target)


@every_estimator
def test_constants_without_gradient_and_inputs_untouched(estimator) -> None:
    inputs = random_inputs(1)
    copies = [x.clone() for x in inputs]
    for x in inputs:
        x.requires_grad_()
    advantage, target = estimator(*inputs)
    assert not advantage.requires_grad
    assert not target.requires_grad
    for x, copy in zip(inputs, copies, strict=True):
        assert torch.equal(x.detach(), copy)


@pytest.mark.parametrize("name", ALL)
def test_declares_what_it_must_be_given(name: str) -> None:
    assert getattr(advantages, name).of == "state_value"
