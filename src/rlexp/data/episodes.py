"""Whole episodes end to end, and where each begins: what an evaluation records and a dataset is made of.

    episodes = load_episodes(Path("episodes/ppo"))
    episodes.columns["observation"]                  # [N, *O], as the environment gave them
    episodes.of(3)["reward"].sum()                   # of the fourth episode
    episodes.about["env"]["id"]                      # where they come from

On the disk they are a folder of `save_tree`: safetensors, JSON, and a manifest of digests; no pickle.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlexp.data.uniform import COLUMNS
from rlexp.errors import ConfigError, StorageError
from rlexp.storage import make_directory
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.types import Box, EnvSpec, Space

KIND = "rlexp episodes"


class Episodes(NamedTuple):
    """E episodes of N steps together. Episode e is the rows start[e] to start[e + 1] of every column."""

    columns: dict[str, np.ndarray]  # [N, ...] by the names of Transition, in the types of a replay buffer
    start: np.ndarray  # [E + 1] int64, from 0 to N
    number: np.ndarray  # [E] int64, which episode of the evaluation it is
    seed: np.ndarray  # [E] int64, what the environment was reset with
    episode_return: np.ndarray  # [E] float64, the sum of the rewards before they became float32
    about: dict[str, Any]  # plain values: environment, spaces, policy, weights, run

    @property
    def length(self) -> np.ndarray:
        """[E] int64, steps of each episode."""
        return np.diff(self.start)

    def of(self, e: int) -> dict[str, np.ndarray]:
        """The columns of one episode, [length, ...]; views."""
        steps = slice(self.start[e], self.start[e + 1])
        return {name: column[steps] for name, column in self.columns.items()}


class Recorder:
    """Keeps the steps of environments that play side by side, and puts those of each episode together.

    Args:
        spec: actions are kept as the environment took them: real ones clipped to the bounds of its space.
        numbers: the episodes to keep.
    """

    def __init__(self, spec: EnvSpec, numbers: range) -> None:
        self._spec = spec
        self._numbers = numbers
        self._number: list[np.ndarray] = []
        self._steps: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS if name != "time"}

    def add(self, number: Sequence[int], step: Mapping[str, np.ndarray]) -> None:
        """One step of B environments, [B, ...] by the names of Transition; copied.

        number: [B], of the episode that each is in.
        """
        self._number.append(np.array(number))
        for name, kept in self._steps.items():
            kept.append(step[name].copy())

    def episodes(self, seeds: Sequence[int], returns: Sequence[float], about: Mapping[str, Any]) -> Episodes:
        """The episodes in the order of their numbers, each with its seed and return."""
        number = np.stack(self._number).ravel()  # [T, B] in the order of time
        order = np.argsort(number, kind="stable")
        order = order[np.isin(number[order], self._numbers)]
        columns = {}
        for name, kept in self._steps.items():
            stacked = np.stack(kept)
            columns[name] = stacked.reshape(-1, *stacked.shape[2:])[order]
        action = self._spec.action
        columns["action"] = columns["action"].reshape(-1, *action.shape)
        if isinstance(action, Box):
            columns["action"] = columns["action"].clip(action.low, action.high)
        length = np.bincount(number[order] - self._numbers.start, minlength=len(self._numbers))
        start = np.concatenate([[0], np.cumsum(length)])
        columns["time"] = np.arange(len(order)) - np.repeat(start[:-1], length)
        return Episodes(
            {name: columns[name] for name in COLUMNS},
            start,
            np.array(self._numbers),
            np.array(seeds, np.int64),
            np.array(returns, np.float64),
            {"env": _described(self._spec), **about},
        )


def _described(spec: EnvSpec) -> dict[str, Any]:
    def space(of: Space) -> dict[str, Any]:
        return {"kind": of.kind, **dataclasses.asdict(of)}

    return {
        "id": spec.id,
        "observation": space(spec.observation),
        "action": space(spec.action),
        "time_limit": spec.time_limit,
    }


def check_free(directory: Path) -> None:
    """Raises ConfigError where something lies there: saving would take its place."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise ConfigError(f"{directory}: exists already; name a new folder for the episodes, or remove it")


def save_episodes(directory: Path, episodes: Episodes) -> None:
    """Write a new folder, all or nothing. Raises ConfigError where one exists, StorageError where it cannot be."""
    check_free(directory)
    make_directory(directory.absolute().parent)
    save_tree(directory.absolute(), {"kind": KIND, **episodes._asdict()})


def load_episodes(directory: Path) -> Episodes:
    """Read what `save_episodes` wrote; raises StorageError for whatever is damaged or something else."""
    tree = load_tree(directory)
    if tree.pop("kind", None) != KIND:
        raise StorageError(
            f"{directory}: holds no recorded episodes; rlexp-evaluate RUN --save-episodes DIR makes them"
        )
    try:
        episodes = Episodes(**tree)
        num_steps, num_episodes = int(episodes.start[-1]), len(episodes.start) - 1
        lengths = [len(episodes.columns[name]) for name in COLUMNS]
        counts = [len(values) for values in (episodes.number, episodes.seed, episodes.episode_return)]
    except (TypeError, KeyError, IndexError) as error:
        raise StorageError(f"{directory}: not episodes of this version ({type(error).__name__}: {error})") from error
    if set(lengths) != {num_steps} or set(counts) != {num_episodes} or (episodes.length < 1).any():
        raise StorageError(f"{directory}: its columns and its episodes differ in length")
    return episodes
