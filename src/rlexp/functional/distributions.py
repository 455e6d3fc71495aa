"""Families of policies as functions of their parameters, the last dim of a network's output (P8).

No torch.distributions object: building one costs more than the small networks it serves.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from rlexp.types import Box, Discrete, Noise, Space

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """Softmax over `num_actions` actions; parameters are logits [*B, A], actions [*B] int64."""

    num_actions: int

    @property
    def noise(self) -> Noise:
        return Noise("gumbel", self.num_actions)

    def num_parameters(self) -> int:
        return self.num_actions

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """argmax(logits + Gumbel noise) is a draw from the softmax (Gumbel-max)."""
        return (parameters + noise).argmax(-1)

    def mode(self, parameters: Tensor) -> Tensor:
        return parameters.argmax(-1)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """[*B]."""
        return parameters.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """[*B], nats."""
        log_probs = parameters.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals; parameters are means and log standard deviations, [*B, 2 A], actions [*B, A].

    Actions are not squashed: the environment clips them to its bounds, the density is that of the unclipped action.
    """

    size: int

    @property
    def noise(self) -> Noise:
        return Noise("normal", self.size)

    def num_parameters(self) -> int:
        return self.size

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, -1)
        return mean + log_std.exp() * noise

    def mode(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, -1)[0]

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """[*B], summed over the action's dimensions."""
        mean, log_std = parameters.chunk(2, -1)
        standardised = (action - mean) * (-log_std).exp()
        return (-0.5 * standardised.square() - log_std - 0.5 * LOG_2PI).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """[*B], nats."""
        log_std = parameters.chunk(2, -1)[1]
        return (log_std + 0.5 * (1 + LOG_2PI)).sum(-1)


def family_of(action: Space) -> Categorical | DiagonalGaussian:
    """The family for an action space: softmax for discrete actions, a diagonal Gaussian for real vectors."""
    if isinstance(action, Discrete):
        return Categorical(action.n)
    assert isinstance(action, Box)
    return DiagonalGaussian(math.prod(action.shape))
