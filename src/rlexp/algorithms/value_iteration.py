"""Value iteration on a finite model."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlexp.functional.dynamic_programming import bellman_optimality
from rlexp.networks.layers import Table
from rlexp.ranges import PROBABILITY
from rlexp.state import TrainState
from rlexp.types import MDP, ActorOutput, Discrete, Encoder, EnvSpec, Metrics, Noise, Progress, Update


@dataclass(frozen=True)
class ValueIteration:
    """Sweeps of Bellman's optimality backup over a table of action values, in double precision.

        Q ← r + γ P max_a Q,      π(s) = argmax_a Q(s, a)

    Bellman 1957; Sutton and Barto 2018, section 4.4.  Notes: 000 L7, 001, 002 1.5.

    Departure: the table holds Q rather than V (V = max_a Q), so that acting needs no model.
    Runs: `algorithm=value_iteration env=frozen_lake`.
    """

    _: KW_ONLY
    gamma: Annotated[float, PROBABILITY]

    actions: ClassVar[frozenset[str]] = frozenset({"discrete"})
    learns_from: ClassVar[str] = "sweep"
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    targets: ClassVar[Mapping[str, str]] = {}

    def networks(self, spec: EnvSpec, encoder: Encoder | None) -> dict[str, nn.Module]:
        assert isinstance(spec.observation, Discrete)
        assert isinstance(spec.action, Discrete)
        return {"q": Table(spec.observation.n, spec.action.n, dtype=torch.float64)}

    def noise(self, spec: EnvSpec) -> Noise:
        return Noise("uniform", 0)

    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput:
        return ActorOutput(nets.q(observation).argmax(-1), core_state)

    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> None:
        """The policy is greedy: there is no density."""
        return None

    def update(self, state: TrainState, model: MDP, progress: Progress) -> Update:
        return Update(state.replace("q", self.backup, model))

    def backup(self, nets: Any, model: MDP) -> tuple[dict[str, Tensor], Metrics]:
        q_value = nets.q.table
        target = bellman_optimality(q_value, model, self.gamma)
        td_error = (target - q_value).abs()
        metrics = {
            "value/max_q": target.amax(),
            "value/mean": target.amax(-1).mean(),
            "value/target": target.mean(),
            "value/td_error": td_error.mean(),
            "value/bellman_residual": td_error.amax(),
        }
        return {"table": target}, metrics

    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]:
        return {}
