"""The distinct evaluation routine: its own environments and streams, the same episodes for every run, cached.

Episode n is reset with a seed that depends on (evaluation.seed, n) alone (`experiment/playing.py`), so two runs, seeds
or algorithms meet the same episodes and may be compared in pairs. What was measured for a set of weights is kept in a
file under their digest.
"""

import hashlib
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rlexp.envs.vector import Episode
from rlexp.errors import StorageError
from rlexp.experience.actor import Actor
from rlexp.experiment.build import make_vector
from rlexp.experiment.playing import episode_seed, play
from rlexp.storage import read_json, write_json
from rlexp.types import EnvSpec, Progress


class Result(NamedTuple):
    """Episodes in their order, n = 0, 1, ..."""

    seeds: list[int]
    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.returns)

    @property
    def std(self) -> float:
        """Over episodes; 0 for a single one."""
        return statistics.pstdev(self.returns)

    def metrics(self) -> dict[str, float]:
        return {
            "eval/return": self.mean,
            "eval/return_std": self.std,
            "eval/length": statistics.fmean(self.lengths),
            "eval/episodes": float(len(self.returns)),
        }


class Evaluator:
    """Evaluates weights.

    Args:
        config: the checked configuration; its `evaluation` node must not be none.
        actor: of a train state that belongs to the evaluation: weights are loaded into it.
        directory: where results are cached; None: nowhere.
    """

    def __init__(self, config: Mapping[str, Any], spec: EnvSpec, actor: Actor, directory: Path | None) -> None:
        self._settings = config["evaluation"]
        self._config = config
        self._spec = spec
        self._actor = actor
        self._directory = directory

    def evaluate(
        self, weights: Mapping[str, Tensor], progress: Progress, episodes: int, policy: str | None = None
    ) -> Result:
        """Run `episodes` episodes, or read those of them that are known for these very weights.

        weights: of one seed, name to [P].  progress: where they were reached, for a sampled policy's schedules.
        """
        policy = policy or self._settings["policy"]
        path = self._cache(weights, progress, policy)
        known = _read(path)
        if len(known.returns) < episodes:
            self._actor.state.load_weights(weights)
            known = self._run(progress, episodes, explore=policy == "sampled")
            if path is not None:
                columns = {"seed": known.seeds, "return": known.returns, "length": known.lengths}
                write_json(path, {"policy": policy, "env": self._spec.id, "episodes": columns})
        return Result(known.seeds[:episodes], known.returns[:episodes], known.lengths[:episodes])

    def _cache(self, weights: Mapping[str, Tensor], progress: Progress, policy: str) -> Path | None:
        if self._directory is None:
            return None
        # A sampled policy may explore by a schedule, so the same weights act otherwise at another step.
        reached = progress.env_steps if policy == "sampled" else None
        digest = hashlib.sha256(
            repr((self._spec, self._config["env"]["kwargs"], policy, self._settings["seed"], reached)).encode()
        )
        for name, values in sorted(weights.items()):
            digest.update(name.encode() + values.numpy().tobytes())
        return self._directory / f"{digest.hexdigest()[:16]}.json"

    def _run(self, progress: Progress, episodes: int, *, explore: bool) -> Result:
        """Environment i plays episodes i, i + B, i + 2 B, ...; episodes beyond the last are not counted.

        In this process also where training has workers: an evaluation is short, and starting processes for each one
        would take longer than they save. The numbers are the same.
        """
        numbers = range(episodes)
        num_envs: int = min(episodes, self._settings["num_envs"])
        vector = make_vector(self._config, self._spec, num_envs, episode_seed(self._settings, numbers, num_envs))
        found: dict[int, Episode] = {}
        try:
            for turn in play(vector, self._actor, progress, self._settings, numbers, explore=explore):
                found |= turn.finished
        finally:
            vector.close()
        ordered = [found[n] for n in numbers]
        return Result([e.seed for e in ordered], [e.episode_return for e in ordered], [e.length for e in ordered])


def _read(path: Path | None) -> Result:
    """What is cached; nothing where the file is missing or damaged (it is then measured again)."""
    try:
        columns = read_json(path)["episodes"] if path is not None and path.exists() else {}
        return Result(list(columns.get("seed", [])), list(columns.get("return", [])), list(columns.get("length", [])))
    except (StorageError, KeyError, TypeError, AttributeError):
        return Result([], [], [])
