"""Losses of temporal-difference errors."""

import pytest
import torch

from rlexp.functional.td import huber


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
