"""Soft actor-critic."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.distributions import SquashedGaussian
from rlexp.functional.policy_gradient import temperature_loss
from rlexp.functional.td import soft_target, soft_value
from rlexp.networks.heads import policy_network, twin_critic
from rlexp.networks.layers import PositiveScalar
from rlexp.ranges import POSITIVE, PROBABILITY, Range
from rlexp.state import TrainState
from rlexp.types import ActorOutput, Encoder, EnvSpec, Metrics, Noise, Progress, Transition, Update


@dataclass(frozen=True)
class SAC:
    """Off-policy actor-critic that maximises return plus entropy, with twin critics and a learned temperature.

        critics       minimise  Σᵢ E[ (Qᵢ(s, a) − y)² ] / 2,   y = r + γ (1 − terminated) V(s')
                      V(s') = minᵢ Q̄ᵢ(s', a') − α log π(a'|s'),   a' ~ π(·|s')
        actor         minimise  E[ α log π(ã|s) − minᵢ Qᵢ(s, ã) ],   ã = c + h tanh(μ(s) + σ(s) ε)
        temperature   minimise  α (H(π) − H̄)
        targets       Q̄ᵢ ← τ Qᵢ + (1 − τ) Q̄ᵢ

    Haarnoja et al. 2018, arXiv:1812.05905, eqs. 5, 9 and 18, algorithm 1; the minimum of two critics: Fujimoto et al.
    2018, arXiv:1802.09477, algorithm 1.  Notes: 002 1.4.5, whose loop bootstraps from terminal states too and names the
    parameters of Q once θ and once φ; 000 L13 keeps the reparameterisation for known models: here it passes through
    the critic, which is one of the return.

    Departures from the paper: a truncated step bootstraps; H(π) is of the actions that the actor's step was taken on
    (no third pass of the actor); H̄ is `target_entropy` for each dimension of an action scaled to [-1, 1], while all
    densities are of the environment's units. There are no uniformly random first steps: the first policy is tanh of a
    standard normal up to the small gain of its last layer, 0.02 nats a dimension from uniform.
    Where a replayed batch holds sequences, all their steps are learned from, each by its own one-step target.
    Runs: `experiment=sac_pendulum`.
    """

    squashed_policy: SquashedGaussian
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    tau: Annotated[float, Range(0, 1, open_low=True)]
    target_entropy: float
    initial_temperature: Annotated[float, POSITIVE]

    actions: ClassVar[frozenset[str]] = frozenset({"box"})
    learns_from: ClassVar[str] = "replay"
    needs: ClassVar[frozenset[str]] = frozenset({"network", "optimizer"})
    gives: ClassVar[frozenset[str]] = frozenset()
    targets: ClassVar[Mapping[str, str]] = {"target_critic": "critic"}

    def networks(self, spec: EnvSpec, encoder: Encoder) -> dict[str, nn.Module]:
        return {
            "actor": policy_network(spec, encoder, self.squashed_policy),
            "critic": twin_critic(spec, encoder),
            "target_critic": twin_critic(spec, encoder),
            "temperature": PositiveScalar(self.initial_temperature),
        }

    def noise(self, spec: EnvSpec) -> Noise:
        return self.squashed_policy.noise

    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput:
        parameters, policy = nets.actor(observation), self.squashed_policy
        action = policy.sample(parameters, noise) if explore else policy.mode(parameters)
        return ActorOutput(action, core_state)

    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> None:
        """Off-policy: how likely an action was when it was taken does not enter."""
        return None

    def update(self, state: TrainState, batch: Transition, progress: Progress) -> Update:
        shape = batch.reward.shape[-2:]
        next_noise = state.draw("next actions", self.squashed_policy.noise, *shape)
        noise = state.draw("actions", self.squashed_policy.noise, *shape)
        metrics = state.minimize("critic", self.critic_loss, batch, next_noise)
        metrics |= state.minimize("actor", self.actor_loss, batch.observation, noise)
        metrics |= state.minimize("temperature", self.temperature_loss, metrics["policy/entropy"])
        state.track("target_critic", "critic", self.tau)
        return Update(metrics)

    def critic_loss(self, nets: Any, batch: Transition, next_noise: Tensor) -> tuple[Tensor, Metrics]:
        """Every [T, B] of the batch is a transition of its own."""
        with torch.no_grad():
            next_parameters = nets.actor(batch.next_observation)
            next_action, next_log_prob = self.squashed_policy.sample_with_log_prob(next_parameters, next_noise)
            next_q_value = nets.target_critic(batch.next_observation, next_action)
            discount = self.gamma * (1 - batch.terminated)
            target = soft_target(batch.reward, discount, next_q_value, next_log_prob, nets.temperature())
        q_value = nets.critic(batch.observation, batch.action)
        td_error = target - q_value  # [2, T, B]
        loss = 0.5 * td_error.square().flatten(1).mean(-1).sum()
        with torch.no_grad():
            metrics = {
                "loss/critic": loss.detach(),
                "value/max_q": q_value.amax(),
                "value/mean": q_value.mean(),
                "value/target": target.mean(),
                "value/td_error": td_error.abs().mean(),
            }
        return loss, metrics

    def actor_loss(self, nets: Any, observation: Tensor, noise: Tensor) -> tuple[Tensor, Metrics]:
        action, log_prob = self.squashed_policy.sample_with_log_prob(nets.actor(observation), noise)
        q_value = nets.critic(observation, action)
        temperature = nets.temperature().detach()
        loss = -soft_value(q_value, log_prob, temperature).mean()
        metrics = {
            "loss/actor": loss.detach(),
            "policy/entropy": -log_prob.detach().mean(),
            "policy/temperature": temperature,
        }
        return loss, metrics

    def temperature_loss(self, nets: Any, entropy: Tensor) -> tuple[Tensor, Metrics]:
        policy = self.squashed_policy
        target_entropy = policy.size * (self.target_entropy + math.log(policy.half_range))
        loss = temperature_loss(nets.temperature(), entropy, target_entropy)
        return loss, {"loss/temperature": loss.detach()}

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        return {}
