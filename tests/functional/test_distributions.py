"""Policy families against torch.distributions, and their samples against their probabilities."""

import math

import pytest
import torch
from torch import distributions

from rlexp.functional.distributions import Categorical, DiagonalGaussian, family_of
from rlexp.streams import Stream
from rlexp.types import Box, Discrete, Noise

TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_categorical_equals_torch() -> None:
    logits, reference = 3 * randn(4, 5, 6), distributions.Categorical(logits=3 * randn(4, 5, 6))
    policy = Categorical(6)
    for action in range(6):
        chosen = torch.full((4, 5), action)
        torch.testing.assert_close(policy.log_prob(logits, chosen), reference.log_prob(chosen), **TIGHT)
    torch.testing.assert_close(policy.entropy(logits), reference.entropy(), **TIGHT)
    assert torch.equal(policy.mode(logits), reference.probs.argmax(-1))
    assert policy.num_parameters() == 6
    assert policy.noise == Noise("gumbel", 6)


def test_categorical_by_hand() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log() + 7.0  # an offset changes nothing
    policy = Categorical(3)
    assert policy.log_prob(logits, torch.tensor(0)).item() == pytest.approx(math.log(0.5), abs=1e-6)
    assert policy.entropy(logits).item() == pytest.approx(1.5 * math.log(2), abs=1e-6)


def test_gaussian_equals_torch() -> None:
    mean, log_std = randn(4, 5, 3), 0.7 * randn(4, 5, 3, seed=1)
    parameters, action = torch.cat([mean, log_std], -1), randn(4, 5, 3, seed=2)
    reference = distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)
    policy = DiagonalGaussian(3)
    torch.testing.assert_close(policy.log_prob(parameters, action), reference.log_prob(action), **TIGHT)
    torch.testing.assert_close(policy.entropy(parameters), reference.entropy(), **TIGHT)
    assert torch.equal(policy.mode(parameters), mean)
    noise = randn(4, 5, 3, seed=3)
    torch.testing.assert_close(policy.sample(parameters, noise), mean + log_std.exp() * noise, **TIGHT)
    assert policy.noise == Noise("normal", 3)


def test_gradients_by_finite_differences() -> None:
    logits, action = randn(3, 4).requires_grad_(), torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: Categorical(4).log_prob(x, action), (logits,))
    assert torch.autograd.gradcheck(Categorical(4).entropy, (logits,))
    parameters, taken = randn(3, 4).requires_grad_(), randn(3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: DiagonalGaussian(2).log_prob(x, taken), (parameters,))
    assert torch.autograd.gradcheck(DiagonalGaussian(2).entropy, (parameters,))


def test_gumbel_max_draws_from_the_softmax() -> None:
    probs = torch.tensor([0.05, 0.15, 0.3, 0.5])
    policy, count = Categorical(4), 200_000
    noise = torch.from_numpy(Stream(0, "test").noise(policy.noise, count))
    action = policy.sample(probs.log().expand(count, 4), noise)
    frequency = torch.bincount(action, minlength=4) / count
    deviation = (probs * (1 - probs) / count).sqrt()
    assert ((frequency - probs).abs() < 4 * deviation).all(), frequency


def test_gaussian_samples_have_the_moments_of_the_parameters() -> None:
    mean, std, count = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]), 200_000
    policy = DiagonalGaussian(2)
    noise = torch.from_numpy(Stream(0, "test").noise(policy.noise, count))
    action = policy.sample(torch.cat([mean, std.log()]).expand(count, 4), noise)
    assert ((action.mean(0) - mean).abs() < 4 * std / count**0.5).all()
    assert ((action.std(0) / std - 1).abs() < 4 / (2 * count) ** 0.5).all()


def test_family_of_a_space() -> None:
    assert family_of(Discrete(3)) == Categorical(3)
    assert family_of(Box((2,), -1.0, 1.0)) == DiagonalGaussian(2)
