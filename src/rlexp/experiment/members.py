"""The seeds of a run: one alone in the run's folder, or several stacked, each in a folder of its own inside it.

A member's folder is that of a run like any other (configuration, rows, weights, evaluations, status), so that
evaluating, mirroring and comparing do not know how it was trained. Checkpoints belong to the run.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlexp.envs.vector import Vector
from rlexp.errors import NonFiniteError
from rlexp.types import Seeds


def seeds_of(config: Mapping[str, Any]) -> list[int]:
    return [config["seed"]] if config["seeds"] is None else list(config["seeds"])


def folders_of(config: Mapping[str, Any], directory: Path) -> dict[int, Path]:
    """The folder of each seed."""
    if config["seeds"] is None:
        return {config["seed"]: directory}
    return {seed: directory / f"s{seed}" for seed in config["seeds"]}


def alone(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The configuration of one of the seeds as if it were trained alone."""
    return {**config, "seed": seed, "seeds": None}


def places_of(state: Seeds) -> list[range]:
    """The places of the seeds of each member of the state."""
    ends = list(itertools.accumulate((len(member.seeds) for member in state.members), initial=0))
    return [range(first, stop) for first, stop in itertools.pairwise(ends)]


class Failures:
    """Seeds whose numbers are no longer finite, and why. They are frozen while others are left."""

    def __init__(self, seeds: list[int]) -> None:
        self._seeds = seeds
        self._vector: Vector | None = None
        self.messages: dict[int, str] = {}

    def watch(self, vector: Vector | None) -> None:
        """Where a seed's numbers began with one of these environments, that is the reason to give."""
        self._vector = vector

    def add(self, index: int, message: str, state: Seeds) -> None:
        """Freeze the seed at this place; raises NonFiniteError where no other goes on."""
        message = self._of_environment(index) or message
        self.messages[self._seeds[index]] = message
        if all(frozen for other, frozen in enumerate(state.frozen) if other != index):
            raise NonFiniteError(message)
        state.freeze(index)

    def _of_environment(self, index: int) -> str | None:
        """What an environment of the seed at this place returned, as that seed alone would say it."""
        if self._vector is None:
            return None
        each = self._vector.num_envs // len(self._seeds)
        found = (one for one in self._vector.not_finite() if one.env // each == index)
        return next((one._replace(env=one.env % each).describe(self._vector.spec) for one in found), None)

    def state_dict(self) -> dict[str, Any]:
        return {"messages": [[seed, message] for seed, message in self.messages.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.messages = dict(state["messages"])
