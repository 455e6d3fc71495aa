"""Families of policies as functions of their parameters, the last dim of a network's output (P8).

No torch.distributions object: building one costs more than the small networks it serves.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlexp.types import Box, Discrete, Noise, Space

LOG_2PI = math.log(2 * math.pi)
LOG_2 = math.log(2)


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


@dataclass(frozen=True)
class SquashedGaussian:
    """Independent normals through tanh, rescaled to [low, high]; parameters as of `DiagonalGaussian`, actions [*B, A].

        u = μ + σ ε,   a = c + h tanh(u)            c = (high + low) / 2,   h = (high − low) / 2
        log π(a) = Σ [ log N(u; μ, σ) − log h − log(1 − tanh² u) ]
        log(1 − tanh² u) = 2 (log 2 − u − softplus(−2 u))       exact, also where tanh u rounds to 1

    σ depends on the state. log σ is clamped to [−20, 2], as in the code of Haarnoja et al. 2018 (the paper gives no
    range); beyond it the gradient of log σ is 0. The density is of the action in the environment's units. Its entropy
    has no closed form: −log π of samples estimates it.

    Haarnoja et al. 2018, arXiv:1812.05905, appendix C (there h = 1, c = 0).  Notes: 000 L13 has ε, not the squashing.
    """

    size: int
    low: float
    high: float

    LOG_STD_RANGE = (-20.0, 2.0)

    @property
    def noise(self) -> Noise:
        return Noise("normal", self.size)

    @property
    def half_range(self) -> float:
        """h, in the action's units."""
        return (self.high - self.low) / 2

    def num_parameters(self) -> int:
        return 2 * self.size

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self._split(parameters)
        return self._squash(mean + log_std.exp() * noise)

    def sample_with_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised draw [*B, A] and its log π [*B]; gradients pass through both. noise: [*B, A], ε."""
        mean, log_std = self._split(parameters)
        unsquashed = mean + log_std.exp() * noise
        return self._squash(unsquashed), self._log_prob(noise, log_std, unsquashed)

    def mode(self, parameters: Tensor) -> Tensor:
        """c + h tanh(μ): the median of each dimension, and what a deterministic policy does."""
        return self._squash(self._split(parameters)[0])

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """[*B]. An action that rounding has put on a bound is taken as the nearest one inside."""
        mean, log_std = self._split(parameters)
        inside = 1 - torch.finfo(action.dtype).eps
        unsquashed = ((action - (self.high + self.low) / 2) / self.half_range).clamp(-inside, inside).atanh()
        return self._log_prob((unsquashed - mean) * (-log_std).exp(), log_std, unsquashed)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.chunk(2, -1)
        return mean, log_std.clamp(*self.LOG_STD_RANGE)

    def _squash(self, unsquashed: Tensor) -> Tensor:
        return unsquashed.tanh() * self.half_range + (self.high + self.low) / 2

    def _log_prob(self, standardised: Tensor, log_std: Tensor, unsquashed: Tensor) -> Tensor:
        log_normal = -0.5 * standardised.square() - log_std
        log_slope = 2 * (unsquashed + _softplus(-2 * unsquashed))  # minus log(1 - tanh^2), but for its constant
        constant = 0.5 * LOG_2PI + 2 * LOG_2 + math.log(self.half_range)
        return (log_normal + log_slope - constant).sum(-1)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp x). Not torch's, whose vector lanes round otherwise than its last few elements: a stacked seed, whose
    elements lie elsewhere in memory, would differ from itself alone."""
    return x.clamp(min=0) + (-x.abs()).exp().log1p()


def squashed_family_of(action: Space) -> SquashedGaussian:
    """For real vectors between finite bounds."""
    assert isinstance(action, Box)
    assert math.isfinite(action.high - action.low)
    return SquashedGaussian(math.prod(action.shape), action.low, action.high)


def family_of(action: Space) -> Categorical | DiagonalGaussian:
    """The family for an action space: softmax for discrete actions, a diagonal Gaussian for real vectors."""
    if isinstance(action, Discrete):
        return Categorical(action.n)
    assert isinstance(action, Box)
    return DiagonalGaussian(math.prod(action.shape))
