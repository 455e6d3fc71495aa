"""Whole networks: a torso and a head. The gain of the last layer decides how a run begins."""

from torch import nn

from rlexp.functional.distributions import DiagonalGaussian
from rlexp.networks.layers import AppendLogStd, Linear, Squeeze
from rlexp.types import Encoder, EnvSpec, PolicyFamily


def policy_network(spec: EnvSpec, encoder: Encoder, policy: PolicyFamily) -> nn.Module:
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
