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

from rlexp.data.episodes import Recorder
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

    def add(self, episode: Episode) -> None:
        self.seeds.append(episode.seed)
        self.returns.append(episode.episode_return)
        self.lengths.append(episode.length)

    def part(self, numbers: range) -> "Result":
        """Some of the episodes, by their numbers."""
        kept = slice(numbers.start, numbers.stop)
        return Result(self.seeds[kept], self.returns[kept], self.lengths[kept])

    def changed(self, known: "Result", first: int = 0) -> list[int]:
        """The numbers of the episodes that differ from what is known of them; `first` is the number of both firsts."""
        pairs = zip(zip(*self, strict=True), zip(*known, strict=True), strict=False)  # fewer may be known
        return [n for n, (now, before) in enumerate(pairs, first) if now != before]

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
        self,
        weights: Mapping[str, Tensor],
        progress: Progress,
        episodes: int,
        policy: str | None = None,
        recorder: Recorder | None = None,
    ) -> Result:
        """Run `episodes` episodes, or read those of them that are known for these very weights.

        weights: of one seed, as `Actor.weights_of` gives them.
        progress: where they were reached, for a sampled policy's schedules.
        recorder: keeps the steps; known episodes are played again for it, and what is known of them stays as it is.
        """
        policy = policy or self._settings["policy"]
        known = self.known(weights, progress, policy)
        if len(known.returns) >= episodes and recorder is None:
            return known.part(range(episodes))
        self._actor.load_weights(weights)
        played = self._run(progress, episodes, recorder, explore=policy == "sampled")
        path = self._cache(weights, progress, policy)
        if path is not None and len(known.returns) < episodes:
            columns = {"seed": played.seeds, "return": played.returns, "length": played.lengths}
            write_json(path, {"policy": policy, "env": self._spec.id, "episodes": columns})
        return played

    def known(self, weights: Mapping[str, Tensor], progress: Progress, policy: str | None = None) -> Result:
        """What is cached for these weights; nothing where the file is missing or damaged: it is then measured again."""
        path = self._cache(weights, progress, policy or self._settings["policy"])
        try:
            columns = read_json(path)["episodes"] if path is not None and path.exists() else {}
            return Result(*(list(columns.get(name, [])) for name in ("seed", "return", "length")))
        except (StorageError, KeyError, TypeError, AttributeError):
            return Result([], [], [])

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

    def _run(self, progress: Progress, episodes: int, recorder: Recorder | None, *, explore: bool) -> Result:
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
                if recorder is not None:
                    recorder.add(turn.number, turn.columns())
        finally:
            vector.close()
        result = Result([], [], [])
        for n in numbers:
            result.add(found[n])
        return result
