"""What is subtracted from a return."""

import torch

from rlexp.functional.baselines import value


def test_value_is_the_critics_and_carries_no_gradient() -> None:
    v = torch.tensor([[1.0, 2.0]], requires_grad=True)
    other = torch.full((1, 2), 7.0)
    b = value(other, v, other, other)
    assert b.tolist() == [[1.0, 2.0]]
    assert not b.requires_grad
    assert value.uses_value
