"""Episodes played as the evaluation counts them: which reset, which noise, and how the networks are asked.

Episode n is reset with a seed, and its policy draws noise, that depend on (evaluation.seed, n) alone. The networks are
always given `evaluation.num_envs` rows, and episode n stands in row n modulo that number: products of matrices round
otherwise in another shape. So an episode has the same return, bit for bit, whichever others are played beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlexp.envs.vector import Episode, EpisodeSeed, Step, Vector, check_finite
from rlexp.experience.actor import Actor
from rlexp.streams import Stream, derive_seed
from rlexp.types import Progress


class Turn(NamedTuple):
    """A step of every environment."""

    number: list[int]  # [B] of the episode that each environment was in; beyond the last one they are not counted
    observation: np.ndarray  # [B, *O]
    action: np.ndarray  # [B, *A], as the policy gave it
    step: Step  # its arrays are reused by the next
    finished: dict[int, Episode]  # by number: those of the asked ones that ended

    def columns(self) -> dict[str, np.ndarray]:
        """By the names of Transition, [B, ...]."""
        reward, terminated, truncated, successor = self.step
        return {
            "observation": self.observation,
            "action": self.action,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "next_observation": successor,
        }


def episode_seed(settings: Mapping[str, Any], numbers: range, num_envs: int) -> EpisodeSeed:
    """For a vector that plays `numbers`: environment i takes the i-th of them, then each `num_envs`-th."""
    return lambda i, k: derive_seed(settings["seed"], "evaluation", numbers.start + i + num_envs * k)


def play(
    vector: Vector,
    actor: Actor,
    progress: Progress,
    settings: Mapping[str, Any],
    numbers: range,
    *,
    explore: bool,
) -> Iterator[Turn]:
    """Step until the asked episodes are over. Closing the vector is the caller's.

    vector: made with `episode_seed`; one environment, or min(len(numbers), evaluation.num_envs).
    progress: where the weights were reached, for a sampled policy's schedules.
    settings: the `evaluation` node.  numbers: successive episodes.
    Raises EnvironmentFailure and NonFiniteError as the vector does.
    """
    width, num_envs, seed = settings["num_envs"], vector.num_envs, settings["seed"]
    number = [numbers.start + i for i in range(num_envs)]
    row = [n % width for n in number]
    streams = [Stream(seed, "evaluation noise", n) for n in number]
    inputs = np.zeros((width, *vector.spec.observation.shape), vector.spec.observation.dtype)
    randomness = np.zeros((width, actor.noise.size), np.float32)
    left = len(numbers)
    vector.start()
    while left:
        inputs[row] = vector.observation
        if explore:
            for place, stream in zip(row, streams, strict=True):
                randomness[place] = stream.noise(actor.noise)
        observation = vector.observation.copy()
        action = actor(inputs, randomness, progress, explore=explore)[row]
        step = vector.step(action)
        played, finished = number.copy(), {}
        for episode in vector.drain_finished():
            i, n = episode.env, number[episode.env]
            if n in numbers:
                finished[n] = episode
            number[i] = n = n + num_envs
            streams[i] = Stream(seed, "evaluation noise", n)
            if n in numbers:  # else it keeps its row, which is no other's
                row[i] = n % width
        left -= len(finished)
        yield Turn(played, observation, action, step, finished)
    check_finite(vector)
