"""The tanh-squashed Gaussian: its density by integration, by differences and by torch, its stability, its bounds."""

import math

import pytest
import torch
from torch import distributions

from rlexp.functional.distributions import SquashedGaussian, squashed_family_of
from rlexp.streams import Stream
from rlexp.types import Box, Noise

BOUNDS = [(-1.0, 1.0), (-2.0, 2.0), (0.5, 3.0), (-3.0, -2.5)]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def f64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.4), (-1.5, 1.8), (0.2, 0.05)])
def test_the_density_integrates_to_one_and_its_entropy_is_that_of_samples(bounds, mean: float, std: float) -> None:
    """By the trapezoid rule over u in the middle of each cell of actions: 200,000 cells between the bounds."""
    policy, parameters = SquashedGaussian(1, *bounds), f64(mean, math.log(std))
    edges = torch.linspace(*bounds, 200_001, dtype=torch.float64)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    log_prob = policy.log_prob(parameters.expand(len(middle), 2), middle.unsqueeze(-1))
    assert (log_prob.exp() * width).sum().item() == pytest.approx(1, abs=2e-3)  # mass piles up at the bounds
    noise = torch.from_numpy(Stream(0, "test").normal(200_000, 1)).double()
    sampled = policy.sample_with_log_prob(parameters.expand(200_000, 2), noise)[1]
    expected = -(log_prob.exp() * log_prob * width).sum()
    assert -sampled.mean().item() == pytest.approx(expected.item(), abs=0.02)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_density_is_the_slope_of_the_distribution(bounds) -> None:
    """P(a <= x) = Phi((atanh(unit x) - mean) / std); its central difference is the density."""
    low, high = bounds
    mean, log_std, policy = 0.3, -0.4, SquashedGaussian(1, *bounds)
    x = torch.linspace(low + 0.02 * (high - low), high - 0.02 * (high - low), 41, dtype=torch.float64)

    def probability(x: torch.Tensor) -> torch.Tensor:
        u = torch.atanh((2 * x - low - high) / (high - low))
        return distributions.Normal(f64(0), f64(1)).cdf((u - mean) / math.exp(log_std))

    step = 1e-6
    density = (probability(x + step) - probability(x - step)) / (2 * step)
    log_prob = policy.log_prob(f64(mean, log_std).expand(41, 2), x.unsqueeze(-1))
    torch.testing.assert_close(log_prob.exp(), density, rtol=1e-6, atol=1e-7)


def test_equals_torch_and_sums_over_dimensions() -> None:
    mean, log_std, noise = randn(4, 5, 3), 0.5 * randn(4, 5, 3, seed=1), randn(4, 5, 3, seed=2)
    policy, parameters = SquashedGaussian(3, -1.0, 4.0), torch.cat([mean, log_std], -1)
    normal = distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)
    transforms = [
        distributions.TanhTransform(),
        distributions.AffineTransform(f64(1.5, 1.5, 1.5), f64(2.5, 2.5, 2.5), event_dim=1),
    ]
    reference = distributions.TransformedDistribution(normal, transforms)
    action, log_prob = policy.sample_with_log_prob(parameters, noise)
    torch.testing.assert_close(action, 1.5 + 2.5 * torch.tanh(mean + log_std.exp() * noise), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_prob, reference.log_prob(action), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_prob, policy.log_prob(parameters, action), rtol=1e-9, atol=1e-9)
    assert torch.equal(action, policy.sample(parameters, noise))
    assert torch.equal(policy.mode(parameters), policy.sample(parameters, torch.zeros_like(noise)))
    assert policy.num_parameters() == 6
    assert policy.noise == Noise("normal", 3)


def test_gradients_pass_through_the_draw() -> None:
    policy, noise = SquashedGaussian(2, -2.0, 5.0), randn(3, 2, seed=1)
    parameters = (0.7 * randn(3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: policy.sample_with_log_prob(x, noise), (parameters,))
    assert torch.autograd.gradcheck(lambda x: policy.log_prob(x, torch.full_like(noise, 1.2)), (parameters,))


def test_by_hand_far_from_the_middle() -> None:
    """mean 0, std 1, epsilon 20, h = 1: log(1 - tanh^2 20) = 2 log 2 - 40 up to e^-40, although tanh 20 rounds to 1."""
    policy = SquashedGaussian(1, -1.0, 1.0)
    parameters = torch.tensor([0.0, 0.0], requires_grad=True)
    for sign in (1.0, -1.0):
        action, log_prob = policy.sample_with_log_prob(parameters, torch.tensor([20.0 * sign]))
        assert action.item() == sign
        assert log_prob.item() == pytest.approx(-200 - 0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 40, rel=1e-6)
        (slope,) = torch.autograd.grad(log_prob, parameters)
        # d log pi / d mean = 2 tanh u, d / d log std = -1 + 2 tanh(u) std epsilon
        torch.testing.assert_close(slope, torch.tensor([2.0 * sign, 39.0]))
        assert policy.log_prob(parameters, action).isfinite()


def test_actions_stay_inside_and_reach_both_bounds() -> None:
    policy, noise = SquashedGaussian(1, 0.5, 3.0), torch.linspace(-50, 50, 101).unsqueeze(-1)
    action = policy.sample(torch.zeros(101, 2), noise)
    assert action.min().item() == pytest.approx(0.5)
    assert action.max().item() == pytest.approx(3.0)
    assert (action.diff(dim=0) >= 0).all()


def test_deviations_are_clamped() -> None:
    policy, noise = SquashedGaussian(1, -1.0, 1.0), torch.tensor([1.0])
    for log_std, clamped in ((-25.0, -20.0), (9.0, 2.0), (1.5, 1.5)):
        given, same = (torch.tensor([0.1, x], requires_grad=True) for x in (log_std, clamped))
        assert [x.item() for x in policy.sample_with_log_prob(given, noise)] == [
            x.item() for x in policy.sample_with_log_prob(same, noise)
        ]
        (slope,) = torch.autograd.grad(policy.sample_with_log_prob(given, noise)[1], given)
        assert (slope[1] == 0) == (log_std != clamped)


def test_the_policy_of_zero_parameters_is_nearly_uniform() -> None:
    """KL to uniform 0.02 nats, which is why no uniformly random first steps are needed."""
    noise = torch.from_numpy(Stream(0, "test").normal(200_000, 1)).double()
    log_prob = SquashedGaussian(1, -2.0, 2.0).sample_with_log_prob(noise.new_zeros(200_000, 2), noise)[1]
    assert 0 < log_prob.mean().item() + math.log(4) < 0.03


def test_family_of_a_space() -> None:
    assert squashed_family_of(Box((2,), -0.5, 2.0)) == SquashedGaussian(2, -0.5, 2.0)
