"""Proximal policy optimisation."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rlexp.functional.policy_gradient import approx_kl, clipped_surrogate, explained_variance, standardise
from rlexp.networks.heads import actor_critic, encoded
from rlexp.ranges import POSITIVE, PROBABILITY, Range
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
    Schedule,
    Transition,
    Update,
)


class Minibatch(NamedTuple):
    observation: Tensor  # [N, *O]
    action: Tensor  # [N, *A]
    log_prob: Tensor  # [N] under the policy that acted
    advantage: Tensor  # [N]
    value_target: Tensor  # [N]


@dataclass(frozen=True)
class PPO:
    """PPO with the clipped surrogate, several epochs of minibatches on each rollout.

        maximise  E[ min(ρ Â, clip(ρ, 1 ± ε) Â) ] − c_v E[(V − target)²]/2 + c_e E[H(π)],   ρ = π / π_old

    Schulman et al. 2017, arXiv:1707.06347, eqs. 7 and 9, algorithm 1.  Notes: 001, 003.

    Departures from the paper: advantages are standardised in each minibatch (as in the authors' code); actor and critic
    may have a torso each; each network has its own bound on the gradient's norm; an optional stop of the epochs once
    the KL divergence exceeds 1.5 `target_kl`.
    Runs: `experiment=ppo_cartpole`, `experiment=ppo_acrobot`, `experiment=ppo_pendulum`.
    """

    policy: PolicyFamily
    estimator: Estimator
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    clip_ratio: Annotated[Schedule, POSITIVE]
    value_coef: Annotated[float, Range(0)]
    entropy_coef: Annotated[float, Range(0)]
    num_epochs: Annotated[int, Range(1)]
    num_minibatches: Annotated[int, Range(1)]
    target_kl: Annotated[float, POSITIVE] | None
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
        data, metrics = state.evaluate(self.estimate, rollout)
        num_samples = data.advantage.shape[-1]
        names, clip_ratio = tuple(state.trained), self.clip_ratio(progress)
        active = torch.ones_like(data.advantage[..., 0])
        steps: list[Metrics] = []
        taken: list[Tensor] = []
        for _ in range(self.num_epochs):
            order = state.permutation("minibatches", num_samples)
            for index in order.chunk(self.num_minibatches, -1):
                minibatch = state.take(data, index)
                mask = None if self.target_kl is None else active
                steps.append(state.minimize(names, self.loss, minibatch, clip_ratio, active=mask))
                taken.append(active)
                if self.target_kl is not None:
                    active = active * (steps[-1]["policy/approx_kl"] <= 1.5 * self.target_kl)
        share = torch.stack(taken, -1)  # a mask, since to stop the epochs would read a number back from the device
        for name in steps[0]:
            metrics[name] = (share * torch.stack([step[name] for step in steps], -1)).sum(-1) / share.sum(-1)
        metrics["policy/steps_taken"] = share.mean(-1)
        return Update(metrics)

    def estimate(self, nets: Any, rollout: Transition) -> tuple[Minibatch, Metrics]:
        """Advantages and value targets of a rollout [T, B], flattened to [T B], and the critic's diagnostics."""
        assert rollout.log_prob is not None
        value = nets.critic(self.encode(nets, rollout.observation))
        next_value = nets.critic(self.encode(nets, rollout.next_observation))
        discount = self.gamma * (1 - rollout.terminated)
        done = torch.maximum(rollout.terminated, rollout.truncated)
        advantage, value_target = self.estimator(
            rollout.reward, discount, value, next_value, done, torch.zeros_like(value)
        )
        one_step_error = rollout.reward + discount * next_value - value
        metrics = {
            "value/mean": value.mean(),
            "value/target": value_target.mean(),
            "value/td_error": one_step_error.abs().mean(),
            "value/explained_variance": explained_variance(value, value_target),
        }
        columns = (rollout.observation, rollout.action, rollout.log_prob, advantage, value_target)
        return Minibatch(*(x.flatten(0, 1) for x in columns)), metrics

    def loss(self, nets: Any, minibatch: Minibatch, clip_ratio: float | Tensor) -> tuple[Tensor, Metrics]:
        features = self.encode(nets, minibatch.observation)
        parameters, value = nets.actor(features), nets.critic(features)
        log_ratio = self.policy.log_prob(parameters, minibatch.action) - minibatch.log_prob
        ratio = log_ratio.exp()
        policy_loss = -clipped_surrogate(ratio, standardise(minibatch.advantage), clip_ratio).mean()
        value_loss = 0.5 * (value - minibatch.value_target).square().mean()
        entropy = self.policy.entropy(parameters).mean()
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        with torch.no_grad():
            metrics = {
                "loss/actor": policy_loss.detach(),
                "loss/critic": value_loss.detach(),
                "policy/entropy": entropy.detach(),
                "policy/approx_kl": approx_kl(log_ratio.detach()),
                "policy/clip_fraction": ((ratio.detach() - 1).abs() > clip_ratio).float().mean(),
            }
        return loss, metrics

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        return {"policy/clip_ratio": self.clip_ratio(progress)}
