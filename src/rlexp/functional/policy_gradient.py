"""Surrogate losses of policy gradients and what one measures about them."""

import torch
from torch import Tensor


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_ratio: float | Tensor) -> Tensor:
    """PPO's clipped surrogate, to be maximised.

        L = min( ρ Â, clip(ρ, 1 − ε, 1 + ε) Â )            ρ = π(a|s) / π_old(a|s)

    Args:
        ratio, advantage: [*B].  clip_ratio: ε, one number.
    Returns:
        [*B].

    Schulman et al. 2017, arXiv:1707.06347, eq. 7.  Notes: 001, 003.
    """
    bounded = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)  # type: ignore[arg-type]
    return torch.minimum(ratio * advantage, bounded * advantage)


def approx_kl(log_ratio: Tensor) -> Tensor:
    """KL(π_old, π) from samples of π_old: mean of (ρ − 1) − log ρ, unbiased and never negative.

    Args:
        log_ratio: [*B], log π − log π_old.
    Returns:
        0-d.

    Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    return (log_ratio.exp() - 1 - log_ratio).mean()


def temperature_loss(temperature: Tensor, entropy: Tensor, target_entropy: float) -> Tensor:
    """The dual objective of an entropy constraint, to be minimised over the temperature.

        J(α) = α (H(π) − H̄)            H(π) = E[ −log π(a|s) ]

    α falls while the policy's entropy is above its target and rises while it is below.

    Args:
        temperature: 0-d, α > 0.  entropy: 0-d, H(π), a constant.  target_entropy: H̄.  All but α in nats.
    Returns:
        0-d.

    Haarnoja et al. 2018, arXiv:1812.05905, eq. 18.
    """
    return temperature * (entropy - target_entropy)


def masked_mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the elements where `valid` is 1, over all where it is None. Returns 0-d."""
    return x.mean() if valid is None else (x * valid).sum() / valid.sum()


def explained_variance(prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 − Var(target − prediction) / Var(target): 1 is perfect, 0 no better than a constant, below 0 worse.

    Args:
        prediction, target: same shape.  valid: of that shape, 0 where an element does not count; None: all count.
    Returns:
        0-d; 0 where the target does not vary.
    """
    variance, residual = _variance(target, valid), _variance(target - prediction, valid)
    return torch.where(variance > 0, 1 - residual / variance.clamp(min=1e-12), torch.zeros_like(variance))


def _variance(x: Tensor, valid: Tensor | None) -> Tensor:
    """Two means, not `var`, which rounds otherwise where seeds are stacked."""
    return masked_mean((x - masked_mean(x, valid)).square(), valid)


def standardise(x: Tensor) -> Tensor:
    """(x − mean) / (std + 1e-8) over all elements."""
    return (x - x.mean()) / (x.std(unbiased=False) + 1e-8)
