"""Vectors of each kind for the same task, and comparisons of what they do."""

import functools
from pathlib import Path

import numpy as np

from rlexp.envs.asynchronous import AsyncVector
from rlexp.envs.cartpole import CartPoleVector
from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import EpisodeSeed, Vector, check_finite
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.streams import Stream, derive_seed
from rlexp.types import EnvSpec
from tests.conftest import env_spec

EPISODE_SEED = functools.partial(derive_seed, 5, "environment")


def make_vector(
    kind: str, name: str, num_envs: int, time_limit: int | None = None, episode_seed: EpisodeSeed = EPISODE_SEED
) -> Vector:
    """A vector that has not started; the asynchronous one has two workers at most."""
    spec = env_spec(name, time_limit)
    if kind == "numpy":
        return CartPoleVector(spec, num_envs, episode_seed)
    make = functools.partial(make_env, spec.id, {})
    if kind == "async":
        return AsyncVector(make, spec, num_envs, episode_seed, 2, 60.0)
    return SyncVector(make, spec, num_envs, episode_seed)


def random_actions(spec: EnvSpec, stream: Stream, num_envs: int) -> np.ndarray:
    if spec.action.kind == "discrete":
        return stream.integers(spec.action.n, num_envs)
    return 1.5 * stream.normal(num_envs, *spec.action.shape)


def compare_steps(one: Vector, other: Vector, stream: Stream, steps: int, share: float = 1.0) -> list:
    """Random actions to both; everything must be the same, bit for bit. Returns the finished episodes.

    share: of the environments that are stepped, at random; the others wait, also in the middle of an episode.
    """
    for _ in range(steps):
        actions = random_actions(one.spec, stream, one.num_envs)
        if share == 1.0:
            answers = one.step(actions), other.step(actions)
        else:
            answers = step_some(stream.uniform(one.num_envs) < share, actions, one, other)
        for a, b in zip(*answers, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        np.testing.assert_array_equal(one.observation, other.observation, strict=True)
        np.testing.assert_array_equal(one.time, other.time, strict=True)
    check_finite(one)
    check_finite(other)
    finished = one.drain_finished()
    assert finished == other.drain_finished()
    assert [type(value) for e in finished for value in e] == [int, int, int, float, int] * len(finished)
    return finished


def step_some(active: np.ndarray, actions: np.ndarray, *vectors: Vector) -> list[list[np.ndarray]]:
    """The active rows of each vector's answer; the others must be left as they were."""
    answers = []
    for vector in vectors:
        before = [column.copy() for column in (*vector._step, vector.observation, vector.time)]
        answer = vector.step(actions, active)
        for column, was in zip((*answer, vector.observation, vector.time), before, strict=True):
            np.testing.assert_array_equal(column[~active], was[~active], strict=True)
        answers.append([column[active] for column in answer])
    return answers


def through_disk(path: Path, state: dict) -> dict:
    save_tree(path, state)
    return load_tree(path)
