"""The algorithm's `act` bound to a train state: the one place where acting may be made fast."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rlexp.experience.normalization import Scaling
from rlexp.types import Algorithm, EnvSpec, Progress, Seeds

SCALING = "normalization"
"""Name of the observations' scaling beside the networks in a set of weights."""


class Actor:
    """Acts for the seeds of a run, in NumPy where the networks allow it.

    scaling: of the environment's observations, followed as it changes.
    """

    def __init__(self, algorithm: Algorithm, state: Seeds, spec: EnvSpec, scaling: Scaling) -> None:
        self.state = state
        self._scaling = scaling
        self.noise = algorithm.noise(spec)
        self._algorithm = algorithm
        self._nets = state.acting_nets()
        self._on_cpu = state.device.type == "cpu"
        self._stack = (len(state.seeds), -1) if state.stacked else None

    def __call__(self, observation: np.ndarray, noise: np.ndarray, progress: Progress, *, explore: bool) -> np.ndarray:
        """observation: [B, *O]; noise: [B, self.noise.size]. Returns actions [B, *A]. Of stacked seeds, B is S times as
        many, seed by seed."""
        inputs, randomness = torch.from_numpy(self._scaling(observation)), torch.from_numpy(noise)
        if self._stack is not None:
            inputs, randomness = (x.view(*self._stack, *x.shape[1:]) for x in (inputs, randomness))
        if not self._on_cpu:
            inputs, randomness = inputs.to(self.state.device), randomness.to(self.state.device)
        output = self._algorithm.act(self._nets, inputs, None, randomness, progress, explore=explore)
        action = output.action if self._stack is None else output.action.flatten(0, 1)
        return action.cpu().numpy()

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
