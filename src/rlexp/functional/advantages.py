"""Return and advantage estimators (E1), one signature for all.

Every function takes the same six tensors, [T, *B]:

    reward          rₜ
    discount        dₜ = γ (1 − terminatedₜ): 0 where the MDP ended, so nothing is bootstrapped there
    value           V(sₜ)
    next_value      V(s'ₜ), of the true successor: after a truncation not the first state of the next episode
    done            terminatedₜ or truncatedₜ, as 0 and 1: the next row belongs to another episode
    log_rho         log π(aₜ|sₜ) − log μ(aₜ|sₜ); ignored here: the data are taken as on-policy

Beyond the last row every estimator bootstraps from next_value, as it does at a truncation. Advantages are
value_target − value; both are constants. Hyperparameters are keyword-only and come from the configuration.

Notes: 000 L6, 001, 002 1.4.6 (its n-step sum has one reward too many), 003.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor

from rlexp.functional.recurrence import reverse_recurrence
from rlexp.ranges import Range
from rlexp.types import Estimate

Function = TypeVar("Function", bound=Callable[..., Any])


def estimates(kind: str) -> Callable[[Function], Function]:
    """Declare what an estimator must be given: "state_value" or "action_value". A pair that does not fit is refused."""

    def declare(function: Function) -> Function:
        function.of = kind  # type: ignore[attr-defined]
        return function

    return declare


@estimates("state_value")
@torch.no_grad()
def monte_carlo(
    reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, done: Tensor, log_rho: Tensor
) -> Estimate:
    """Monte Carlo return.

        Gₜ = rₜ + dₜ [ doneₜ V(s'ₜ) + (1 − doneₜ) Gₜ₊₁ ]

    The whole discounted return of an episode; only a cut-off tail (truncation, end of the data) is bootstrapped.

    Args and returns: see the module.
    """
    del log_rho
    returns = reverse_recurrence(reward + discount * done * next_value, discount * (1 - done), next_value[-1])
    return Estimate(returns - value, returns)


@estimates("state_value")
@torch.no_grad()
def one_step_td(
    reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, done: Tensor, log_rho: Tensor
) -> Estimate:
    """One-step temporal difference.

        Gₜ = rₜ + dₜ V(s'ₜ)

    Args and returns: see the module.  Sutton 1988, "Learning to predict by the methods of temporal differences".
    """
    del done, log_rho
    target = reward + discount * next_value
    return Estimate(target - value, target)


@estimates("state_value")
@torch.no_grad()
def n_step(
    reward: Tensor,
    discount: Tensor,
    value: Tensor,
    next_value: Tensor,
    done: Tensor,
    log_rho: Tensor,
    *,
    n_step: Annotated[int, Range(1)],
) -> Estimate:
    """n-step return: n rewards, then the value of the state reached; less where the episode or the data end before.

        G⁽¹⁾ₜ = rₜ + dₜ V(s'ₜ)
        G⁽ⁿ⁾ₜ = rₜ + dₜ [ doneₜ V(s'ₜ) + (1 − doneₜ) G⁽ⁿ⁻¹⁾ₜ₊₁ ]

    Args and returns: see the module.  n_step: n, in steps.
    Sutton and Barto 2018, eq. 7.1; notes 002 (1.109) counts n + 1 rewards, the book's n is used.
    """
    del log_rho
    target = reward + discount * next_value
    for _ in range(min(n_step, reward.shape[0]) - 1):
        following = torch.cat([target[1:], next_value[-1:]])
        target = reward + discount * torch.where(done > 0, next_value, following)
    return Estimate(target - value, target)


@estimates("state_value")
@torch.no_grad()
def gae(
    reward: Tensor,
    discount: Tensor,
    value: Tensor,
    next_value: Tensor,
    done: Tensor,
    log_rho: Tensor,
    *,
    lambda_: Annotated[float, Range(0, 1)],
) -> Estimate:
    """Generalised advantage estimation.

        δₜ = rₜ + dₜ V(s'ₜ) − V(sₜ)
        Âₜ = δₜ + dₜ λ (1 − doneₜ) Âₜ₊₁            value target: Âₜ + V(sₜ)

    λ = 0 is the one-step TD error, λ = 1 Monte Carlo minus V.

    Args and returns: see the module.  lambda_: λ, the decay of the trace.
    Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    del log_rho
    td_error = reward + discount * next_value - value
    advantage = reverse_recurrence(td_error, discount * lambda_ * (1 - done), torch.zeros_like(value[-1]))
    return Estimate(advantage, advantage + value)


@estimates("state_value")
@torch.no_grad()
def td_lambda(
    reward: Tensor,
    discount: Tensor,
    value: Tensor,
    next_value: Tensor,
    done: Tensor,
    log_rho: Tensor,
    *,
    lambda_: Annotated[float, Range(0, 1)],
) -> Estimate:
    """λ-return, the target of TD(λ) in its forward view.

        Gₜ = rₜ + dₜ [ (1 − λ (1 − doneₜ)) V(s'ₜ) + λ (1 − doneₜ) Gₜ₊₁ ]

    Its advantage equals that of `gae`; the two recursions differ only in rounding.

    Args and returns: see the module.  lambda_: λ, the decay of the trace.
    Sutton and Barto 2018, eq. 12.20 with a constant λ.
    """
    del log_rho
    trace = lambda_ * (1 - done)
    returns = reverse_recurrence(reward + discount * (1 - trace) * next_value, discount * trace, next_value[-1])
    return Estimate(returns - value, returns)
