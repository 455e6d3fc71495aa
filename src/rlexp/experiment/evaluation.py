"""The callback that evaluates now and then, and the two results at the end: of the final and of the best weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlexp.experience.actor import Actor
from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.intervals import EveryAndLast
from rlexp.experiment.members import places_of
from rlexp.experiment.rows import Rows
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.types import Experience, Progress, Seeds, Update


class Evaluation:
    """A short evaluation each `interval` environment steps; the weights with the best one are kept in `weights/best`.

    It draws from streams of its own and writes rows of their own kind: no training row changes when it is off.

    Args:
        evaluators: by seed.
        actor: the one that trains, whose weights are evaluated.
        turns: when the seeds of each member of the state are evaluated.
        folders: where weights lie, by seed.
    """

    def __init__(
        self,
        evaluators: Mapping[int, Evaluator],
        settings: Mapping[str, Any],
        turns: Sequence[EveryAndLast],
        experience: Experience,
        actor: Actor,
        rows: Rows,
        folders: Mapping[int, Path],
    ) -> None:
        self._evaluators = evaluators
        self._settings = settings
        self._turns = list(turns)
        self._experience = experience
        self._actor = actor
        self._rows = rows
        self._folders = folders
        self._best = dict.fromkeys(evaluators, -math.inf)

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Seeds) -> str | None:
        for places, member, turns in zip(places_of(state), state.members, self._turns, strict=True):
            if turns.due(member.progress, self._experience.finished):
                finite = state.finite()  # the next row or checkpoint tells of those that are not
                for index in places:
                    if finite[index] and not state.frozen[index]:
                        self._evaluate(state.seeds[index], self._actor.weights_of(index), member.progress)
        return None

    def _evaluate(self, seed: int, weights: Mapping[str, Tensor], progress: Progress) -> None:
        result = self._evaluators[seed].evaluate(weights, progress, self._settings["episodes"])
        self._rows.append("eval", seed, progress, result.metrics())
        if result.mean > self._best[seed]:
            self._best[seed] = result.mean
            save_weights(self._folders[seed] / "best", weights, progress)

    def finish(self, state: Seeds) -> dict[int, dict[str, dict[str, Any]]]:
        """Evaluate the final weights of each seed, then its best ones, on the same episodes, and log both."""
        return {
            seed: self._finish(seed, evaluator, self._actor.weights_of(index), state.progress_of(index))
            for index, (seed, evaluator) in enumerate(self._evaluators.items())
            if not state.frozen[index]
        }

    def _finish(
        self, seed: int, evaluator: Evaluator, final: Mapping[str, Tensor], progress: Progress
    ) -> dict[str, dict[str, Any]]:
        episodes = self._settings["final_episodes"]
        results = {"final": _summary(evaluator.evaluate(final, progress, episodes), progress.env_steps)}
        if (self._folders[seed] / "best").exists():
            best = load_tree(self._folders[seed] / "best")
            reached = progress._replace(env_steps=best["env_steps"])
            results["best"] = _summary(evaluator.evaluate(best["weights"], reached, episodes), best["env_steps"])
        row = {f"{which}/{key}": value for which, values in results.items() for key, value in values.items()}
        self._rows.append("final", seed, progress, row)
        return results

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self._best.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best = dict(zip(self._best, state["best"], strict=True))

    def resume(self, state: Seeds) -> None:
        for turns, member in zip(self._turns, state.members, strict=True):
            turns.resume(member.progress.env_steps)


def save_weights(path: Path, weights: Mapping[str, Tensor], progress: Progress) -> None:
    save_tree(path, {"weights": dict(weights), "env_steps": progress.env_steps})


def _summary(result: Result, env_steps: int) -> dict[str, Any]:
    return {"return": result.mean, "return_std": result.std, "episodes": len(result.returns), "env_steps": env_steps}
