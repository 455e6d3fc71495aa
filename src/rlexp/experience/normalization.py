"""Observations and rewards on a scale that networks like: by running moments, for each seed its own.

    observation    clip( (o − ō) / √(Var o + 1e-8), ± observation_clip )
    reward         clip( r / √(Var R + 1e-8), ± reward_clip ),    Rₜ = γ Rₜ₋₁ + rₜ,  from 0 in each episode

A reward keeps its sign and its zero: it is divided, not shifted. Engstrom et al. 2020, arXiv:2005.12729, section 3,
items 2 and 5; Andrychowicz et al. 2021, arXiv:2006.05990, section 3.3. Logged and evaluated returns stay raw.

The moments rest while data come in, so that one rollout is acted and learned with one scale, and learn from the raw
data afterwards. The first rollout is acted on raw observations, bounded. What is stored for replay is raw and meets the
present moments each time that it is drawn.
"""

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from rlexp.data.moments import Moments
from rlexp.ranges import POSITIVE
from rlexp.types import EnvSpec, Transition

EPSILON = 1e-8  # added to a variance


class Scaling:
    """What is subtracted from each seed's observations, what they are multiplied with, and the bound afterwards.

    clip: in standard deviations; None: observations stay as they are.
    """

    def __init__(self, num_seeds: int, shape: tuple[int, ...], clip: float | None) -> None:
        self.clip = clip
        self.mean = np.zeros((num_seeds, *shape), np.float32)
        self.factor = np.ones((num_seeds, *shape), np.float32)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """observation: [..., S B, *O], the first B of the first seed; returns the same shape, scaled."""
        if self.clip is None:
            return observation
        num_seeds, shape = len(self.mean), self.mean.shape[1:]
        lead = observation.shape[: observation.ndim - len(shape)]
        by_seed = observation.reshape(*lead[:-1], num_seeds, -1, *shape)
        scaled = by_seed - self.mean[:, None]
        scaled *= self.factor[:, None]
        np.maximum(scaled, -self.clip, out=scaled)
        np.minimum(scaled, self.clip, out=scaled)
        return scaled.reshape(observation.shape)

    def drawn(self, observation: Tensor) -> Tensor:
        """The same of sequences drawn for each seed, [S, T, B, *O]."""
        if self.clip is None:
            return observation
        mean, factor = (torch.from_numpy(x).to(observation.device)[:, None, None] for x in (self.mean, self.factor))
        return ((observation - mean) * factor).clamp(-self.clip, self.clip)

    def of(self, index: int) -> Tensor:
        """[2, *O]: mean and factor of the seed at this place, to be kept beside its weights."""
        return torch.from_numpy(np.stack([self.mean[index], self.factor[index]]))

    def load(self, kept: Tensor) -> None:
        """Of a Scaling of one seed: take what `of` gave. Raises ValueError where it is of other observations."""
        if kept.shape != (2, *self.mean.shape[1:]):
            raise ValueError(f"normalization: saved moments {tuple(kept.shape)}, observations {self.mean.shape[1:]}")
        self.mean[0], self.factor[0] = kept.numpy()


class Normaliser:
    """The moments of a run's raw data, and what they make of a batch: nothing, where both bounds are None.

    Args:
        spec: of the environment.
        num_envs: B, of each seed.
        seeds: S of them.
        gamma: the algorithm's, for the return that scales rewards.
        observation_clip, reward_clip: bounds after scaling; None: observations, or rewards, stay raw.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        seeds: list[int],
        gamma: float,
        *,
        observation_clip: Annotated[float, POSITIVE] | None,
        reward_clip: Annotated[float, POSITIVE] | None,
    ) -> None:
        self.scaling = Scaling(len(seeds), spec.observation.shape, observation_clip)
        self._observations = Moments(len(seeds), spec.observation.shape)
        self._returns = Moments(len(seeds), ())
        self._running = np.zeros(len(seeds) * num_envs)  # R of each environment's open episode
        self._gamma = gamma
        self._reward_clip = reward_clip

    def fresh(self, segment: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Steps [T, S B, ...] as the algorithm learns from them; then learn from them raw.

        What is scaled stands in arrays of its own: observations by the moments that acted, rewards by those that know
        the rollout, since nothing acted on them.
        """
        scaled = {name: self.scaling(segment[name]) for name in ("observation", "next_observation")}
        self.learn(segment)
        return {**segment, **scaled, "reward": self._scaled_reward(segment["reward"])}

    def drawn(self, batch: Transition) -> Transition:
        """A batch of raw transitions [S, T, B, ...] as it is learned from."""
        if self.scaling.clip is None and self._reward_clip is None:
            return batch
        batch = batch._replace(
            observation=self.scaling.drawn(batch.observation),
            next_observation=self.scaling.drawn(batch.next_observation),
        )
        if self._reward_clip is None:
            return batch
        scale = torch.from_numpy(self._reward_scale()).to(batch.reward.device)[:, None, None]
        return batch._replace(reward=(batch.reward / scale).clamp(-self._reward_clip, self._reward_clip))

    def learn(self, segment: dict[str, np.ndarray]) -> None:
        """Take in raw steps [T, S B, ...], in the order of time; where there is an "active", those alone."""
        if self.scaling.clip is None and self._reward_clip is None:
            return
        active = segment.get("active", np.ones(segment["reward"].shape, bool))
        if self.scaling.clip is not None:
            self._learn(self._observations, segment["observation"], active)
            self._set_scaling()
        if self._reward_clip is not None:
            self._learn(self._returns, self._discounted(segment, active), active)

    def _learn(self, moments: Moments, values: np.ndarray, active: np.ndarray) -> None:
        num_seeds = len(moments.count)
        own = zip(np.split(values, num_seeds, 1), np.split(active, num_seeds, 1), strict=True)
        for index, (of_seed, taken) in enumerate(own):
            moments.learn(index, of_seed[taken])

    def statistics(self, index: int) -> dict[str, float]:
        """Of the seed at this place: what its rewards are divided by, where they are."""
        if self._reward_clip is None:
            return {}
        return {"normalization/reward_scale": float(self._reward_scale()[index])}

    def _discounted(self, segment: dict[str, np.ndarray], active: np.ndarray) -> np.ndarray:
        """R after each step, [T, S B]; the open episodes go on in the next segment."""
        returns = np.empty(segment["reward"].shape)
        ended = (segment["terminated"] + segment["truncated"]) > 0
        for t, reward in enumerate(segment["reward"]):
            np.copyto(self._running, self._gamma * self._running + reward, where=active[t])
            returns[t] = self._running
            self._running[active[t] & ended[t]] = 0
        return returns

    def _reward_scale(self) -> np.ndarray:
        """[S] float32, what rewards are divided by."""
        return np.sqrt(self._returns.variance + EPSILON).astype(np.float32)

    def _scaled_reward(self, reward: np.ndarray) -> np.ndarray:
        """reward: [T, S B]."""
        if self._reward_clip is None:
            return reward
        scale = np.repeat(self._reward_scale(), reward.shape[1] // len(self._returns.count))
        scaled: np.ndarray = np.clip(reward / scale, -self._reward_clip, self._reward_clip)
        return scaled

    def _set_scaling(self) -> None:
        self.scaling.mean[...] = self._observations.mean
        self.scaling.factor[...] = 1 / np.sqrt(self._observations.variance + EPSILON)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if self.scaling.clip is not None:
            state["observations"] = self._observations.state_dict()
        if self._reward_clip is not None:
            state |= {"returns": self._returns.state_dict(), "running": self._running.copy()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaling.clip is not None:
            self._observations.load_state_dict(state["observations"])
            self._set_scaling()
        if self._reward_clip is not None:
            self._returns.load_state_dict(state["returns"])
            self._running[...] = state["running"]
