"""Deep Q-learning."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.td import huber, q_learning_target
from rlexp.networks.heads import q_network
from rlexp.ranges import POSITIVE, PROBABILITY, Range
from rlexp.state import TrainState
from rlexp.types import (
    ActorOutput,
    Discrete,
    Encoder,
    EnvSpec,
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

        minimise  E[ huber( r + γ (1 − terminated) max_a Q_target(s', a) − Q(s, a) ) ]

    Mnih et al. 2015, doi:10.1038/nature14236, algorithm 1.  Notes: 000 L8.

    Departures from the paper: a truncated step bootstraps; the target network is tracked with weight `tau` every
    `target_update_interval` updates (1 copies, as in the paper; a small one is Polyak averaging); the gradient's
    norm may be bounded besides the Huber loss. The rates of collection and regression belong to the replay.
    Runs: `experiment=dqn_cartpole`.
    """

    exploration: Exploration
    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]
    tau: Annotated[float, Range(0, 1, open_low=True)]
    target_update_interval: Annotated[int, Range(1)]
    huber_delta: Annotated[float, POSITIVE]

    actions: ClassVar[frozenset[str]] = frozenset({"discrete"})
    learns_from: ClassVar[str] = "replay"
    needs: ClassVar[frozenset[str]] = frozenset({"exploration", "network", "optimizer"})
    gives: ClassVar[frozenset[str]] = frozenset()
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
        q_values = nets.q(batch.observation)
        q_value = q_values.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            discount = self.gamma * (1 - batch.terminated)
            target = q_learning_target(batch.reward, discount, nets.target_q(batch.next_observation))
        td_error = target - q_value
        loss = huber(td_error, self.huber_delta).mean()
        with torch.no_grad():
            metrics = {
                "loss/q": loss.detach(),
                "value/max_q": q_values.detach().amax(),
                "value/mean": q_value.detach().mean(),
                "value/target": target.mean(),
                "value/td_error": td_error.detach().abs().mean(),
            }
        return loss, metrics

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        assert isinstance(spec.action, Discrete)
        return self.exploration.metrics(spec.action.n, progress)
