"""PPO's surrogate and what is measured about it."""

import math

import pytest
import torch

from rlexp.functional.policy_gradient import (
    approx_kl,
    clipped_surrogate,
    explained_variance,
    masked_mean,
    standardise,
    temperature_loss,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [
        (1.5, 2.0, 2.4, 0.0),  # good action, already likelier than 1 + 0.2: clipped
        (0.5, 2.0, 1.0, 2.0),  # good action, less likely: not clipped
        (1.5, -2.0, -3.0, -2.0),  # bad action, likelier: not clipped
        (0.5, -2.0, -1.6, 0.0),  # bad action, already less likely than 1 - 0.2: clipped
        (1.1, 2.0, 2.2, 2.0),  # within the bounds
        (0.9, -2.0, -1.8, -2.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, surrogate: float, slope: float) -> None:
    x = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    y = clipped_surrogate(x, torch.tensor(advantage, dtype=torch.float64), 0.2)
    assert y.item() == pytest.approx(surrogate, abs=1e-12)
    assert torch.autograd.grad(y, x)[0].item() == slope


def test_clipped_surrogate_gradient_by_finite_differences() -> None:
    ratio = torch.tensor([0.3, 0.7, 0.85, 1.0, 1.15, 1.3, 2.0], dtype=torch.float64, requires_grad=True)
    for sign in (1.0, -1.0):
        advantage = sign * torch.tensor([1.0, 0.3, 2.0, 0.7, 1.1, 0.2, 3.0], dtype=torch.float64)
        advantage.requires_grad_()
        assert torch.autograd.gradcheck(lambda r, a: clipped_surrogate(r, a, 0.2), (ratio, advantage))


def test_clipped_surrogate_is_a_lower_bound_and_tight_at_ratio_one() -> None:
    generator = torch.Generator().manual_seed(0)
    ratio, advantage = 3 * torch.rand(500, generator=generator), torch.randn(500, generator=generator)
    assert (clipped_surrogate(ratio, advantage, 0.2) <= ratio * advantage).all()
    assert torch.equal(clipped_surrogate(torch.ones(500), advantage, 0.2), advantage)


def test_approx_kl_never_negative_and_zero_for_equal_policies() -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-2, 1.0, 10.0):
        log_ratio = scale * torch.randn(1000, 1, generator=generator, dtype=torch.float64)
        assert all(approx_kl(x).item() >= 0 for x in log_ratio)
    assert approx_kl(torch.zeros(10)).item() == 0
    assert approx_kl(torch.tensor([0.0, math.log(2)])).item() == pytest.approx((1 - math.log(2)) / 2)


def test_approx_kl_estimates_the_exact_divergence() -> None:
    old = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    new = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    action = torch.multinomial(old, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    log_ratio = (new.log() - old.log())[action]
    samples = log_ratio.exp() - 1 - log_ratio
    exact = (old * (old.log() - new.log())).sum().item()
    assert abs(approx_kl(log_ratio).item() - exact) < 4 * (samples.std() / 200_000**0.5).item()
    # Not the divergence in the other direction, which these policies tell apart.
    reverse = (new * (new.log() - old.log())).sum().item()
    assert abs(approx_kl(log_ratio).item() - reverse) > 4 * (samples.std() / 200_000**0.5).item()


def test_explained_variance() -> None:
    target = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(target, target).item() == 1
    assert explained_variance(target + 5, target).item() == pytest.approx(1)  # variance does not see an offset
    assert explained_variance(torch.full((4,), 9.0), target).item() == 0
    assert explained_variance(-target, target).item() == pytest.approx(-3)
    # Var(target) = 3.5; target - prediction = (0, 0, 0, 2) has variance 0.75
    prediction = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(prediction, target).item() == pytest.approx(1 - 0.75 / 3.5)
    assert explained_variance(target, torch.full((4,), 2.0)).item() == 0  # nothing to explain


def test_masked_elements_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    valid = (torch.rand(3, 5, generator=generator) < 0.6).double()
    kept = valid > 0
    assert masked_mean(target, valid).item() == pytest.approx(target[kept].mean().item())
    assert masked_mean(target).item() == target.mean().item()
    expected = explained_variance(prediction[kept], target[kept]).item()
    assert explained_variance(prediction, target + 100 * (1 - valid), valid).item() == pytest.approx(expected)


def test_standardise() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
    y = standardise(x)
    assert y.shape == x.shape
    assert y.mean().item() == pytest.approx(0, abs=1e-12)
    assert y.std(unbiased=False).item() == pytest.approx(1, abs=1e-7)
    assert torch.equal(y.flatten().argsort(), x.flatten().argsort())
    assert standardise(torch.full((4,), 3.0)).tolist() == [0.0] * 4  # no division by zero
    x.requires_grad_()
    assert torch.autograd.gradcheck(standardise, (x,))


def test_temperature_loss_by_hand() -> None:
    """Above its target, entropy is worth less: the slope in alpha is entropy minus target, so descent lowers alpha."""
    for entropy, slope in ((0.5, 1.5), (-3.0, -2.0), (-1.0, 0.0)):
        temperature = torch.tensor(0.25, requires_grad=True)
        loss = temperature_loss(temperature, torch.tensor(entropy), -1.0)
        assert loss.item() == 0.25 * slope
        assert torch.autograd.grad(loss, temperature)[0].item() == slope
