"""The one reverse recurrence that carries returns, TD(lambda), GAE and the trace-corrected estimators."""

import torch
from torch import Tensor


def reverse_recurrence(a: Tensor, b: Tensor, last: Tensor) -> Tensor:
    """Solve xₜ = aₜ + bₜ xₜ₊₁ backwards from x_T = last.

    Args:
        a, b: [T, *B].  last: [*B], the value beyond the end.
    Returns:
        x: [T, *B].
    """
    x = torch.empty_like(a)
    following = last
    # One fused multiply-add a step; unbinding once avoids T index operations.
    for out, a_t, b_t in zip(reversed(x.unbind(0)), reversed(a.unbind(0)), reversed(b.unbind(0)), strict=True):
        torch.addcmul(a_t, b_t, following, out=out)
        following = out
    return x
