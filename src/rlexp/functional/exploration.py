"""Behaviour policies on top of action values."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rlexp.ranges import PROBABILITY
from rlexp.types import Noise, Progress, Schedule


@dataclass(frozen=True)
class EpsilonGreedy:
    """With probability epsilon a uniformly random action, else the greedy one.  Notes: 000 L7, L8."""

    _: KW_ONLY
    epsilon: Annotated[Schedule, PROBABILITY]

    noise: ClassVar[Noise] = Noise("uniform", 2)

    def __call__(self, q_value: Tensor, noise: Tensor, progress: Progress) -> Tensor:
        """q_value: [*B, A]; noise: [*B, 2], uniform. Returns actions [*B]."""
        num_actions = q_value.shape[-1]
        random_action = (noise[..., 0] * num_actions).long().clamp_(max=num_actions - 1)
        return torch.where(noise[..., 1] < self.epsilon(progress), random_action, q_value.argmax(-1))

    def metrics(self, num_actions: int, progress: Progress) -> dict[str, float]:
        """The rate, and the entropy of the behaviour policy in nats (the same in every state, ties apart)."""
        epsilon = self.epsilon(progress)
        other = epsilon / num_actions
        greedy = 1 - epsilon + other
        entropy = -_x_log_x(greedy) - (num_actions - 1) * _x_log_x(other)
        return {"exploration/epsilon": epsilon, "policy/entropy": entropy + 0.0}


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0
