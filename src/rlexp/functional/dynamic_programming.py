"""Exact backups on a finite model."""

import torch
from torch import Tensor

from rlexp.types import MDP


def bellman_optimality(q_value: Tensor, model: MDP, gamma: float) -> Tensor:
    """Bellman's optimality backup of action values.

        (T Q)(s, a) = r(s, a) + γ Σ_s' p(s'|s, a) max_a' Q(s', a')

    A contraction by γ in the maximum norm; its fixed point is Q*.

    Args:
        q_value: [S, A].  model: transitions [S, A, S] (no mass into terminal states) and rewards [S, A].
    Returns:
        [S, A].

    Bellman 1957; Sutton and Barto 2018, eq. 4.10.  Notes: 000 L7, 001, 002 1.5.
    """
    return model.reward + gamma * torch.einsum("san,n->sa", model.transition, q_value.amax(-1))
