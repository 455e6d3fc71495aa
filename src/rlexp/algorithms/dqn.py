"""Deep Q-learning."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.td import huber
from rlexp.networks.heads import q_network
from rlexp.ranges import POSITIVE, PROBABILITY, Range
from rlexp.state import TrainState
from rlexp.types import (
    ActorOutput,
    Discrete,
    Encoder,
    EnvSpec,
    Estimator,
    Exploration,
    Metrics,
    Noise,
    Progress,
    Transition,
    Update,
)


@dataclass(frozen=True)
class DQN:
    """Q-learning with a network, replay and a target network.

        minimise  E[ huber( G − Q(s₀, a₀) ) ],    V(s) = max_a Q_target(s, a)
        one step:   G = r₀ + γ (1 − terminated₀) V(s'₀)
        n steps:    G = r₀ + γ r₁ + ... + γⁿ V(s'ₙ₋₁), cut where the episode ends

    Mnih et al. 2015, doi:10.1038/nature14236, algorithm 1; n steps, without a correction for the actions in between:
    Hessel et al. 2018, arXiv:1710.02298.  Notes: 000 L8.

    Departures from the paper: the target is the estimator's over the replayed sequence; a truncated step bootstraps;
    the target network is tracked with weight `tau` every `target_update_interval` updates (1 copies, as in the paper; a
    small one is Polyak averaging); the gradient's norm may be bounded besides the Huber loss. The rates of collection
    and regression belong to the replay.
    Runs: `experiment=dqn_cartpole`.
    """

    exploration: Exploration
    estimator: Estimator
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    tau: Annotated[float, Range(0, 1, open_low=True)]
    target_update_interval: Annotated[int, Range(1)]
    huber_delta: Annotated[float, POSITIVE]

    actions: ClassVar[frozenset[str]] = frozenset({"discrete"})
    learns_from: ClassVar[str] = "replay"
    needs: ClassVar[frozenset[str]] = frozenset({"estimator", "exploration", "network", "optimizer"})
    gives: ClassVar[frozenset[str]] = frozenset({"state_value"})
    targets: ClassVar[Mapping[str, str]] = {"target_q": "q"}

    def networks(self, spec: EnvSpec, encoder: Encoder) -> dict[str, nn.Module]:
        return {"q": q_network(spec, encoder), "target_q": q_network(spec, encoder)}

    def noise(self, spec: EnvSpec) -> Noise:
        return self.exploration.noise

    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput:
        q_value = nets.q(observation)
        action = self.exploration(q_value, noise, progress) if explore else q_value.argmax(-1)
        return ActorOutput(action, core_state)

    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> None:
        """Q-learning is off-policy: how likely an action was does not enter it."""
        return None

    def update(self, state: TrainState, batch: Transition, progress: Progress) -> Update:
        metrics = state.minimize("q", self.loss, batch)
        if state.progress.updates % self.target_update_interval == 0:
            state.track("target_q", "q", self.tau)
        return Update(metrics)

    def loss(self, nets: Any, batch: Transition) -> tuple[Tensor, Metrics]:
        q_values = nets.q(batch.observation[0])
        q_value = q_values.gather(-1, batch.action[0].unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            discount = self.gamma * (1 - batch.terminated)
            done = torch.maximum(batch.terminated, batch.truncated)
            next_value = nets.target_q(batch.next_observation).amax(-1)
            value = torch.cat([q_value.unsqueeze(0), next_value[:-1]])  # only the first row is learned from
            estimate = self.estimator(batch.reward, discount, value, next_value, done, torch.zeros_like(value))
            target = estimate.value_target[0]
            one_step_error = batch.reward[0] + discount[0] * next_value[0] - q_value
        loss = huber(target - q_value, self.huber_delta).mean()
        with torch.no_grad():
            metrics = {
                "loss/q": loss.detach(),
                "value/max_q": q_values.detach().amax(),
                "value/mean": q_value.detach().mean(),
                "value/target": target.mean(),
                "value/td_error": one_step_error.abs().mean(),
            }
        return loss, metrics

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        assert isinstance(spec.action, Discrete)
        return self.exploration.metrics(spec.action.n, progress)
