"""Targets and errors of temporal-difference learning on action values."""

from torch import Tensor


def q_learning_target(reward: Tensor, discount: Tensor, next_q_value: Tensor) -> Tensor:
    """Target of Q-learning.

        yₜ = rₜ + dₜ max_a Q(s'ₜ, a)            dₜ = γ (1 − terminatedₜ)

    Args:
        reward, discount: [*B].  next_q_value: [*B, A], of the true successor, usually from a target network.
    Returns:
        [*B].

    Watkins and Dayan 1992; Mnih et al. 2015, doi:10.1038/nature14236.  Notes: 000 L7, L8.
    """
    return reward + discount * next_q_value.amax(-1)


def huber(error: Tensor, delta: float) -> Tensor:
    """Huber loss: e²/2 where |e| ≤ δ, δ(|e| − δ/2) beyond, so that its slope never exceeds δ.

    Args:
        error: any shape.  delta: δ, in the units of the error.
    Returns:
        the loss of each element.

    Huber 1964, doi:10.1214/aoms/1177703732.  Notes: 000 L8.
    """
    absolute = error.abs()
    quadratic = absolute.clamp(max=delta)
    return quadratic * (absolute - 0.5 * quadratic)
