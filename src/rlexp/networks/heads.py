"""Whole networks: a torso and a head. The gain of the last layer decides how a run begins."""

import math

from torch import nn

from rlexp.functional.distributions import DiagonalGaussian, SquashedGaussian
from rlexp.networks.layers import AppendLogStd, Ensemble, Linear, Squeeze, StateAction
from rlexp.networks.torso import features
from rlexp.types import Box, Encoder, EnvSpec, PolicyFamily


def policy_network(spec: EnvSpec, encoder: Encoder, policy: PolicyFamily | SquashedGaussian) -> nn.Module:
    """Observation to the parameters of the policy. Gain 0.01: the first policy is close to uniform."""
    torso, width = encoder(spec.observation)
    head: list[nn.Module] = [Linear(width, policy.num_parameters(), gain=0.01)]
    if isinstance(policy, DiagonalGaussian):
        head.append(AppendLogStd(policy.size))
    return nn.Sequential(torso, *head)


def value_network(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation to V, [*B]."""
    torso, width = encoder(spec.observation)
    return nn.Sequential(torso, Linear(width, 1, gain=1.0), Squeeze())


def q_network(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation to Q of every discrete action, [*B, A]."""
    torso, width = encoder(spec.observation)
    return nn.Sequential(torso, Linear(width, spec.action.n, gain=1.0))  # type: ignore[union-attr]


def twin_critic(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation and continuous action to Q of two critics, [2, *B]. Both stand at the torso's input."""
    first, width = features(spec.observation)
    joint = Box((width + math.prod(spec.action.shape),))

    def member() -> nn.Module:
        torso, size = encoder(joint)
        return nn.Sequential(torso, Linear(size, 1, gain=1.0), Squeeze())

    return StateAction(first, Ensemble([member(), member()]))
