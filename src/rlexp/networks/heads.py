"""Whole networks: a torso and a head. The gain of the last layer decides how a run begins."""

import math
from typing import Any

from torch import Tensor, nn

from rlexp.functional.distributions import DiagonalGaussian, SquashedGaussian
from rlexp.networks.layers import AppendLogStd, Ensemble, Linear, Squeeze, StateAction
from rlexp.networks.torso import features
from rlexp.types import Box, Encoder, EnvSpec, PolicyFamily


def policy_network(spec: EnvSpec, encoder: Encoder, policy: PolicyFamily | SquashedGaussian) -> nn.Module:
    """Observation to the parameters of the policy."""
    torso, width = encoder(spec.observation)
    return nn.Sequential(torso, *policy_head(width, policy))


def policy_head(width: int, policy: PolicyFamily | SquashedGaussian) -> list[nn.Module]:
    """Features [*B, width] to the parameters of the policy. Gain 0.01: the first policy is close to uniform."""
    head: list[nn.Module] = [Linear(width, policy.num_parameters(), gain=0.01)]
    return [*head, AppendLogStd(policy.size)] if isinstance(policy, DiagonalGaussian) else head


def value_network(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation to V, [*B]."""
    torso, width = encoder(spec.observation)
    return nn.Sequential(torso, *value_head(width))


def value_head(width: int) -> list[nn.Module]:
    """Features [*B, width] to V, [*B]."""
    return [Linear(width, 1, gain=1.0), Squeeze()]


def q_network(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation to Q of every discrete action, [*B, A]."""
    torso, width = encoder(spec.observation)
    return nn.Sequential(torso, Linear(width, spec.action.n, gain=1.0))  # type: ignore[union-attr]


def actor_critic(spec: EnvSpec, encoder: Encoder, policy: PolicyFamily, *, shared: bool) -> dict[str, nn.Module]:
    """ "actor" and "critic" with a torso each, or "encoder" and two heads on its features (A3).

    A shared torso is a network of its own: each network owns its parameters, its optimizer and the bound on its
    gradient, so what both losses step must be held by neither.
    """
    if not shared:
        return {"actor": policy_network(spec, encoder, policy), "critic": value_network(spec, encoder)}
    torso, width = encoder(spec.observation)
    heads = {"actor": nn.Sequential(*policy_head(width, policy)), "critic": nn.Sequential(*value_head(width))}
    return {"encoder": torso, **heads}


def encoded(nets: Any, observation: Tensor, *, shared: bool) -> Tensor:
    """What the actor and the critic of `actor_critic` take: the encoder's features, or the observation."""
    features: Tensor = nets.encoder(observation) if shared else observation
    return features


def twin_critic(spec: EnvSpec, encoder: Encoder) -> nn.Module:
    """Observation and continuous action to Q of two critics, [2, *B]. Both stand at the torso's input."""
    first, width = features(spec.observation)
    joint = Box((width + math.prod(spec.action.shape),))

    def member() -> nn.Module:
        torso, size = encoder(joint)
        return nn.Sequential(torso, Linear(size, 1, gain=1.0), Squeeze())

    return StateAction(first, Ensemble([member(), member()]))
