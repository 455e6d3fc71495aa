"""The algorithm's `act` bound to a train state: the one place where acting may be made fast."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlexp.experience.normalization import Scaling
from rlexp.programs.program import Program
from rlexp.programs.record import NotRecordable, record
from rlexp.types import Algorithm, EnvSpec, Progress, Seeds

SCALING = "normalization"
"""Name of the observations' scaling beside the networks in a set of weights."""


class Actor:
    """Acts for the seeds of a run: on the CPU by a program (rlexp.programs) where the algorithm's `act` can be one.

    A call of a two-layer MLP on 8 rows costs 116 us as torch modules, sampling apart, and 20 us with it as a program.

    scaling: of the environment's observations, followed as it changes.
    programs: else torch's modules are called.
    """

    def __init__(self, algorithm: Algorithm, state: Seeds, spec: EnvSpec, scaling: Scaling, *, programs: bool) -> None:
        self.state = state
        self._scaling = scaling
        self.noise = algorithm.noise(spec)
        self._algorithm = algorithm
        self._nets = state.acting_nets()
        self._recorded = programs and state.device.type == "cpu"
        self._programs: dict[Any, Program | None] = {}
        self._stack = (len(state.seeds), -1) if state.stacked else None

    def __call__(self, observation: np.ndarray, noise: np.ndarray, progress: Progress, *, explore: bool) -> np.ndarray:
        """observation: [B, *O]; noise: [B, self.noise.size]. Returns actions [B, *A]. Of stacked seeds, B is S times as
        many, seed by seed."""
        observation = self._scaling(observation)
        if not self._recorded:
            return self._by_torch(observation, noise, progress, explore)
        known = isinstance(progress, Progress)  # seeds that are not equally far have none to act by
        key = (explore, len(observation), known and progress.total_env_steps)
        try:
            program = self._programs[key]
        except KeyError:
            program = self._programs[key] = self._program(observation, noise, progress, explore)
        if program is None:
            return self._by_torch(observation, noise, progress, explore)
        action: np.ndarray = program(observation, noise, *(progress[:2] if known else ()))
        return action

    def _by_torch(self, observation: np.ndarray, noise: np.ndarray, progress: Any, explore: bool) -> np.ndarray:
        with torch.inference_mode():  # nothing here is differentiated
            return self._chosen(self._nets, observation, noise, progress, explore).cpu().numpy()

    def _chosen(
        self, nets: Any, observation: np.ndarray | Tensor, noise: np.ndarray | Tensor, progress: Any, explore: bool
    ) -> Tensor:
        inputs, randomness = (torch.as_tensor(x).to(self.state.device) for x in (observation, noise))
        if self._stack is not None:
            inputs, randomness = (x.view(*self._stack, *x.shape[1:]) for x in (inputs, randomness))
        output = self._algorithm.act(nets, inputs, None, randomness, progress, explore=explore)
        action: Tensor = output.action if self._stack is None else output.action.flatten(0, 1)
        return action

    def _program(self, observation: np.ndarray, noise: np.ndarray, progress: Any, explore: bool) -> Program | None:
        """`_chosen`, of networks that are followed as they change, or None where it cannot be recorded."""
        counts = [float(x) for x in progress[:2]] if isinstance(progress, Progress) else []

        def chosen(observation: Tensor, noise: Tensor, *counts: Any) -> Tensor:
            now = progress._replace(env_steps=counts[0], updates=counts[1]) if counts else progress
            return self._chosen(nets, observation, noise, now, explore)

        inputs = [torch.from_numpy(observation), torch.from_numpy(noise)]
        inputs += [torch.tensor(x, dtype=torch.float64) for x in counts]
        with self.state.recording() as nets, torch.no_grad():
            try:
                return Program(record(chosen, inputs), _as_is)
            except NotRecordable:
                return None

    def log_prob(self, observation: Tensor, action: Tensor, member: int = 0) -> Tensor | None:
        """[*S, T, B], of a whole rollout in one pass, by the modules that the update differentiates.

        observation: as the algorithm takes it, scaled already.  member: whose rollout it is, where seeds are apart.
        """
        owner = self.state.members[member]
        log_prob: Tensor | None = owner.evaluate(self._algorithm.log_prob, observation, action)
        return log_prob

    def weights_of(self, index: int) -> dict[str, Tensor]:
        """A copy of all that the policy of the seed at this place is made of: the networks' parameters [P], and the
        scaling [2, *O] of its observations where they are scaled."""
        scaling = {} if self._scaling.clip is None else {SCALING: self._scaling.of(index)}
        return self.state.weights_of(index) | scaling

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Act by what `weights_of` gave, of one seed. Raises ValueError, naming what differs, where it does not fit."""
        scaled = self._scaling.clip is not None
        if scaled != (SCALING in weights):
            raise ValueError(f"{SCALING}: {'missing from' if scaled else 'found in'} the saved weights")
        self.state.load_weights({name: values for name, values in weights.items() if name != SCALING})
        if scaled:
            self._scaling.load(weights[SCALING])


def _as_is(x: np.ndarray) -> np.ndarray:
    return x
