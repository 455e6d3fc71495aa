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
    following, backwards = last, []
    # One fused multiply-add a step; unbinding once avoids T index operations. No `out=`: torch.func.vmap has no rule.
    for a_t, b_t in zip(reversed(a.unbind(0)), reversed(b.unbind(0)), strict=True):
        following = torch.addcmul(a_t, b_t, following)
        backwards.append(following)
    return torch.stack(backwards[::-1])
