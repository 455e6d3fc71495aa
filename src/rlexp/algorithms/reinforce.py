"""REINFORCE, the Monte Carlo policy gradient."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.advantages import monte_carlo
from rlexp.functional.policy_gradient import explained_variance, masked_mean
from rlexp.networks.heads import policy_network, value_network
from rlexp.ranges import PROBABILITY, Range
from rlexp.state import TrainState
from rlexp.types import (
    ActorOutput,
    Baseline,
    Encoder,
    EnvSpec,
    Metrics,
    Noise,
    PolicyFamily,
    Progress,
    Transition,
    Update,
)


@dataclass(frozen=True)
class REINFORCE:
    """Monte Carlo policy gradient on whole episodes, with reward-to-go and a baseline.

        maximise  1/N Σ_episodes Σₜ [ log π(aₜ|sₜ) (Gₜ − bₜ) + c_e H(π(sₜ)) ],    Gₜ = rₜ + γ rₜ₊₁ + γ² rₜ₊₂ + ...
        V, where the baseline uses it:   minimise  E[(V(sₜ) − Gₜ)²]/2

    Williams 1992, doi:10.1007/BF00992696; Sutton and Barto 2018, sections 13.3 and 13.4.
    Notes: 000 L5 and L6, 001, 002 1.3, 003.

    One gradient step on each batch of N episodes; where `baseline` uses no value there is no critic.
    Departures from the book:
    - The weights γᵗ of its boxed algorithms are left out (option 1 of the notes): every step counts the same, as if its
      state were a start. That is biased for the discounted objective, and it is what works in practice.
    - The return of a truncated episode ends at the cut, with the critic's value of the last successor where there is a
      critic; without one it lacks what would have followed.
    - V is fitted with one step on the whole batch, where the book steps after each action.
    Runs: `experiment=reinforce_cartpole`.
    """

    policy: PolicyFamily
    baseline: Baseline | None
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    entropy_coef: Annotated[float, Range(0)]

    actions: ClassVar[frozenset[str]] = frozenset({"discrete", "box"})
    learns_from: ClassVar[str] = "episodes"
    needs: ClassVar[frozenset[str]] = frozenset({"network", "optimizer"})
    optional: ClassVar[frozenset[str]] = frozenset({"baseline"})
    gives: ClassVar[frozenset[str]] = frozenset()
    targets: ClassVar[Mapping[str, str]] = {}

    @property
    def has_critic(self) -> bool:
        return self.baseline is not None and bool(self.baseline.uses_value)

    def networks(self, spec: EnvSpec, encoder: Encoder) -> dict[str, nn.Module]:
        networks = {"actor": policy_network(spec, encoder, self.policy)}
        return networks | {"critic": value_network(spec, encoder)} if self.has_critic else networks

    def noise(self, spec: EnvSpec) -> Noise:
        return self.policy.noise

    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput:
        parameters = nets.actor(observation)
        action = self.policy.sample(parameters, noise) if explore else self.policy.mode(parameters)
        return ActorOutput(action, core_state)

    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> Tensor:
        return self.policy.log_prob(nets.actor(observation), action)

    def update(self, state: TrainState, episodes: Transition, progress: Progress) -> Update:
        return Update(state.minimize(tuple(state.trained), self.loss, episodes))

    def loss(self, nets: Any, episodes: Transition) -> tuple[Tensor, Metrics]:
        """episodes: [T, N, ...], a column each, padded; what the padding holds has no part in it."""
        assert episodes.valid is not None
        valid = episodes.valid
        value, next_value = self.values(nets, episodes)
        parameters = nets.actor(episodes.observation)
        discount = self.gamma * (1 - episodes.terminated)
        done = torch.maximum(episodes.terminated, episodes.truncated)
        returns = monte_carlo(episodes.reward, discount, value, next_value, done, torch.zeros_like(value)).value_target
        baseline = 0.0 if self.baseline is None else self.baseline(returns, value.detach(), episodes.time, valid)
        weighted = self.policy.log_prob(parameters, episodes.action) * (returns - baseline)
        entropy = self.policy.entropy(parameters)
        num_episodes = valid.shape[-1]
        policy_loss = -(weighted * valid).sum() / num_episodes
        loss = policy_loss - self.entropy_coef * (entropy * valid).sum() / num_episodes
        metrics = {"loss/actor": policy_loss.detach(), "policy/entropy": masked_mean(entropy.detach(), valid)}
        if self.has_critic:
            value_loss = 0.5 * masked_mean((value - returns).square(), valid)
            loss = loss + value_loss
            with torch.no_grad():
                one_step_error = episodes.reward + discount * next_value - value
                metrics |= {
                    "loss/critic": value_loss.detach(),
                    "value/mean": masked_mean(value, valid),
                    "value/target": masked_mean(returns, valid),
                    "value/td_error": masked_mean(one_step_error.abs(), valid),
                    "value/explained_variance": explained_variance(value, returns, valid),
                }
        return loss, metrics

    def values(self, nets: Any, episodes: Transition) -> tuple[Tensor, Tensor]:
        """V of each observation, and of its successor without gradient, [T, N]; zeros where there is no critic."""
        if not self.has_critic:
            nothing = torch.zeros_like(episodes.reward)
            return nothing, nothing
        with torch.no_grad():
            next_value = nets.critic(episodes.next_observation)
        return nets.critic(episodes.observation), next_value

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        return {}
