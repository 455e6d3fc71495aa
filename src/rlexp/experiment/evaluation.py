"""The callback that evaluates now and then, and the two results at the end: of the final and of the best weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.intervals import Every
from rlexp.experiment.rows import Rows
from rlexp.state import TrainState
from rlexp.storage import load_tree, save_tree
from rlexp.types import Experience, Progress, Update


class Evaluation:
    """A short evaluation each `interval` environment steps; the weights with the best one are kept in `weights/best`.

    It draws from streams of its own and writes rows of their own kind: no training row changes when it is off.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        settings: Mapping[str, Any],
        interval: int,
        experience: Experience,
        rows: Rows,
        weights: Path,
    ) -> None:
        self._evaluator = evaluator
        self._settings = settings
        self._every = Every(interval)
        self._experience = experience
        self._rows = rows
        self._weights = weights
        self._best = -math.inf

    def __call__(self, progress: Progress, updates: Sequence[Update], state: TrainState) -> str | None:
        last = progress.env_steps >= progress.total_env_steps or self._experience.finished
        if not self._every.due(progress.env_steps) and not last:
            return None
        result = self._evaluator.evaluate(state, self._settings["episodes"])
        self._rows.append("eval", progress, result.metrics())
        if result.mean > self._best:
            self._best = result.mean
            save_weights(self._weights / "best", state)
        return None

    def finish(self, state: TrainState) -> dict[str, dict[str, Any]]:
        """Evaluate the final weights, then the best ones, on the same episodes, and log both."""
        episodes = self._settings["final_episodes"]
        results = {"final": _summary(self._evaluator.evaluate(state, episodes), state.progress.env_steps)}
        final, progress = state.weights(), state.progress
        if (self._weights / "best").exists():
            best = load_tree(self._weights / "best")
            state.load_weights(best["weights"])
            results["best"] = _summary(self._evaluator.evaluate(state, episodes), best["env_steps"])
            state.load_weights(final)
        row = {f"{which}/{key}": value for which, values in results.items() for key, value in values.items()}
        self._rows.append("final", progress, row)
        return results

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best = state["best"]

    def resume(self, env_steps: int) -> None:
        self._every.resume(env_steps)


def save_weights(path: Path, state: TrainState) -> None:
    save_tree(path, {"weights": state.weights(), "env_steps": state.progress.env_steps})


def _summary(result: Result, env_steps: int) -> dict[str, Any]:
    return {"return": result.mean, "return_std": result.std, "episodes": len(result.returns), "env_steps": env_steps}
