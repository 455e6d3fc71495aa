"""Advantage actor-critic."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.policy_gradient import explained_variance
from rlexp.networks.heads import actor_critic, encoded
from rlexp.ranges import PROBABILITY, Range
from rlexp.state import TrainState
from rlexp.types import (
    ActorOutput,
    Encoder,
    EnvSpec,
    Estimator,
    Metrics,
    Noise,
    PolicyFamily,
    Progress,
    Transition,
    Update,
)


@dataclass(frozen=True)
class A2C:
    """Synchronous advantage actor-critic: one gradient step on each short rollout of several environments.

        maximise  E[ log π(aₜ|sₜ) Âₜ ] − c_v E[(V(sₜ) − target)²]/2 + c_e E[H(π(sₜ))]
        n steps:  Âₜ = rₜ + γ rₜ₊₁ + ... + γᵏ V(sₜ₊ₖ) − V(sₜ),   k to the rollout's end, at most n

    Mnih et al. 2016, arXiv:1602.01783, section 4 and algorithm S3, with the workers in step (A4).
    Notes: 000 L6, 001, 002 1.4.2 to 1.4.5.

    The estimator is given log π − log μ of the policy that acted, zero here; off-policy experience and `vtrace` make it
    IMPALA.
    Departures from the paper: means over the rollout, where the paper sums; actor and critic may have a torso each;
    each network has its own bound on the gradient's norm; a truncated step bootstraps; the estimator may be another.
    Runs: `experiment=a2c_cartpole`, `experiment=a2c_acrobot`.
    """

    policy: PolicyFamily
    estimator: Estimator
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    value_coef: Annotated[float, Range(0)]
    entropy_coef: Annotated[float, Range(0)]
    shared_encoder: bool

    actions: ClassVar[frozenset[str]] = frozenset({"discrete", "box"})
    learns_from: ClassVar[str] = "rollout"
    needs: ClassVar[frozenset[str]] = frozenset({"estimator", "network", "optimizer"})
    gives: ClassVar[frozenset[str]] = frozenset({"state_value"})
    targets: ClassVar[Mapping[str, str]] = {}

    def networks(self, spec: EnvSpec, encoder: Encoder) -> dict[str, nn.Module]:
        return actor_critic(spec, encoder, self.policy, shared=self.shared_encoder)

    def noise(self, spec: EnvSpec) -> Noise:
        return self.policy.noise

    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput:
        parameters = nets.actor(self.encode(nets, observation))
        action = self.policy.sample(parameters, noise) if explore else self.policy.mode(parameters)
        return ActorOutput(action, core_state)

    def encode(self, nets: Any, observation: Tensor) -> Tensor:
        return encoded(nets, observation, shared=self.shared_encoder)

    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> Tensor:
        return self.policy.log_prob(nets.actor(self.encode(nets, observation)), action)

    def update(self, state: TrainState, rollout: Transition, progress: Progress) -> Update:
        return Update(state.minimize(tuple(state.trained), self.loss, rollout))

    def loss(self, nets: Any, rollout: Transition) -> tuple[Tensor, Metrics]:
        """rollout: [T, B, ...]."""
        assert rollout.log_prob is not None
        features = self.encode(nets, rollout.observation)
        parameters, value = nets.actor(features), nets.critic(features)
        log_prob = self.policy.log_prob(parameters, rollout.action)
        with torch.no_grad():
            next_value = nets.critic(self.encode(nets, rollout.next_observation))
            discount = self.gamma * (1 - rollout.terminated)
            done = torch.maximum(rollout.terminated, rollout.truncated)
            log_rho = log_prob - rollout.log_prob
            advantage, value_target = self.estimator(rollout.reward, discount, value, next_value, done, log_rho)
            one_step_error = rollout.reward + discount * next_value - value
        policy_loss = -(log_prob * advantage).mean()
        value_loss = 0.5 * (value - value_target).square().mean()
        entropy = self.policy.entropy(parameters).mean()
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        with torch.no_grad():
            metrics = {
                "loss/actor": policy_loss.detach(),
                "loss/critic": value_loss.detach(),
                "policy/entropy": entropy.detach(),
                "value/mean": value.mean(),
                "value/target": value_target.mean(),
                "value/td_error": one_step_error.abs().mean(),
                "value/explained_variance": explained_variance(value, value_target),
            }
        return loss, metrics

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        return {}
