"""What an experience is made of, with an actor that needs no algorithm."""

import functools
from types import SimpleNamespace

import numpy as np
import torch

from rlexp.clock import Clock
from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.experience.collector import Collector
from rlexp.experience.normalization import Normaliser
from rlexp.streams import derive_seed
from rlexp.types import EnvSpec, Noise, Progress
from tests.conftest import env_spec

START = Progress(0, 0, 100_000)


class NoiseActor:
    """Acts by its noise alone, row by row, and calls log pi(a|s) the sum of the observation plus the action."""

    noise = Noise("uniform", 2)
    state = SimpleNamespace(device=torch.device("cpu"), stacked=False)

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def __call__(self, observation: np.ndarray, noise: np.ndarray, progress: Progress, *, explore: bool) -> np.ndarray:
        assert explore
        self.seen.append(progress)
        return (noise[:, 0] < noise[:, 1]).astype(np.int64)

    def log_prob(self, observation: torch.Tensor, action: torch.Tensor, member: int = 0) -> torch.Tensor:
        return observation.sum(-1) + action


def make_normaliser(
    spec: EnvSpec, num_envs: int = 1, seeds: int = 1, observations: float | None = None, rewards: float | None = None
) -> Normaliser:
    """With gamma 0.5; by default one that leaves all as it is."""
    return Normaliser(spec, num_envs, list(range(seeds)), 0.5, observation_clip=observations, reward_clip=rewards)


def make_collector(
    name: str = "cartpole", num_envs: int = 2, seed: int = 0, time_limit: int | None = None
) -> Collector:
    spec = env_spec(name, time_limit)
    episode_seed = functools.partial(derive_seed, seed, "environment")
    vector = SyncVector(functools.partial(make_env, spec.id, {}), spec, num_envs, episode_seed)
    return Collector(vector, [seed], Clock())
