"""Baselines: what is subtracted from a return that carries no value of its own (P4), one signature for all.

    Âₜ = Gₜ − bₜ

Every function takes the same four tensors and answers with bₜ, [T, B], a constant (no gradient):

    returns     Gₜ, the discounted reward-to-go, [T, B]; each column is an episode
    value       V(sₜ) of the critic, [T, B]; zeros where the baseline declares that it needs none
    time        step within the episode, [T, B]
    valid       1 on steps, 0 on padding, [T, B]

A bₜ that does not depend on the action aₜ leaves the policy gradient unbiased: E[∇ log π(aₜ|sₜ) bₜ] = 0.

Notes: 000 L5 and L6, 001, 002, 003.  Williams 1992, doi:10.1007/BF00992696.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def baseline(*, uses_value: bool) -> Callable[[Function], Function]:
    """Declare whether a baseline must be given V. Where it need not, no critic is made."""

    def declare(function: Function) -> Function:
        function.uses_value = uses_value  # type: ignore[attr-defined]
        return function

    return declare


@baseline(uses_value=True)
@torch.no_grad()
def value(returns: Tensor, value: Tensor, time: Tensor, valid: Tensor) -> Tensor:
    """The state's value.

        bₜ = V(sₜ)

    Args and returns: see the module.
    Sutton and Barto 2018, section 13.4, "REINFORCE with baseline".
    """
    del returns, time, valid
    return value.detach()
