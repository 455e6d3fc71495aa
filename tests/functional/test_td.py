"""Losses of temporal-difference errors."""

import pytest
import torch

from rlexp.functional.td import huber, soft_target, soft_value


@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5])
def test_huber_equals_torch(delta: float) -> None:
    error = torch.linspace(-5, 5, 401, dtype=torch.float64)
    expected = torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
    torch.testing.assert_close(huber(error, delta), expected, rtol=1e-13, atol=1e-13)


def test_huber_by_hand() -> None:
    # Quadratic up to delta = 2, then a line of slope 2: 2 (5 - 1) = 8.
    assert huber(torch.tensor([0.0, -1.0, 2.0, -5.0]), 2.0).tolist() == [0.0, 0.5, 2.0, 8.0]


def test_huber_gradient_by_finite_differences_and_bounded_by_delta() -> None:
    error = torch.tensor([-4.0, -1.3, -0.4, 0.2, 0.9, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: huber(e, 1.0), (error,))
    (slope,) = torch.autograd.grad(huber(error, 1.0).sum(), error)
    torch.testing.assert_close(slope, error.detach().clamp(-1, 1), rtol=0, atol=1e-12)


# Two critics, three states: by hand at temperature 0.5.
Q = torch.tensor([[1.0, -2.0, 4.0], [3.0, -6.0, 4.0]])
LOG_PROB = torch.tensor([-2.0, 1.0, 0.0])
TEMPERATURE = torch.tensor(0.5)


def test_soft_value_by_hand() -> None:
    assert soft_value(Q, LOG_PROB, TEMPERATURE).tolist() == [1 + 1, -6 - 0.5, 4]
    assert soft_value(Q, LOG_PROB, torch.tensor(0.0)).tolist() == [1, -6, 4]  # the pessimistic critic alone


def test_soft_target_by_hand() -> None:
    """The second transition terminated."""
    target = soft_target(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.5]), Q, LOG_PROB, TEMPERATURE)
    assert target.tolist() == [1 + 0.5 * 2, 2, 3 + 0.5 * 4]


def test_soft_values_of_a_known_policy_are_the_log_sum_of_exponentials() -> None:
    """Of the policy exp(Q / alpha) / Z every action has the same soft value, alpha log Z."""
    q_value = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    log_z = (q_value / 0.7).exp().sum().log()
    value = soft_value(q_value.expand(2, 3), q_value / 0.7 - log_z, torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close(value, (0.7 * log_z).expand(3), rtol=1e-12, atol=1e-12)


def test_soft_value_is_mapped_over_seeds() -> None:
    q_value, log_prob = torch.randn(5, 2, 4, 3), torch.randn(5, 4, 3)
    temperature = torch.rand(5)
    mapped = torch.func.vmap(soft_value)(q_value, log_prob, temperature)
    for s in range(5):
        assert torch.equal(mapped[s], soft_value(q_value[s], log_prob[s], temperature[s]))
