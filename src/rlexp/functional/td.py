"""Losses of temporal-difference errors, and the targets of soft (entropy-regularised) values."""

from torch import Tensor


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


def soft_value(q_value: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """The soft value of a state from one action of the policy, by the more pessimistic of several critics.

        V(s) = minᵢ Qᵢ(s, a) − α log π(a|s)            a ~ π(·|s)

    Its gradient through a reparameterised action is the policy gradient of SAC: the policy maximises it.

    Args:
        q_value: [E, *B], of each critic.  log_prob: [*B].  temperature: 0-d, α, in the units of the reward per nat.
    Returns:
        [*B].

    Haarnoja et al. 2018, arXiv:1812.05905, eqs. 3 and 7; the minimum: Fujimoto et al. 2018, arXiv:1802.09477, eq. 10.
    Notes: 002 (1.96), (1.98), with one critic and α = 0.
    """
    return q_value.amin(0) - temperature * log_prob


def soft_target(
    reward: Tensor, discount: Tensor, next_q_value: Tensor, next_log_prob: Tensor, temperature: Tensor
) -> Tensor:
    """One-step target of a soft action value.

        y = r + d V(s')            V(s') = minᵢ Q̄ᵢ(s', a') − α log π(a'|s'),   a' ~ π(·|s')

    The action a' is a fresh one of the present policy, not the one stored, so that the data may be of any policy.

    Args:
        reward, discount: [*B], d = γ (1 − terminated).  next_q_value: [E, *B], of the target critics.
        next_log_prob: [*B].  temperature: 0-d, α.
    Returns:
        [*B].

    Haarnoja et al. 2018, arXiv:1812.05905, eqs. 2, 3 and 5.
    Notes: 002 (1.98), which bootstraps from terminal states too.
    """
    return reward + discount * soft_value(next_q_value, next_log_prob, temperature)
