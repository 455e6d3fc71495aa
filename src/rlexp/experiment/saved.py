"""A saved run, read back: its configuration, its weights, and what they are worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from rlexp.data.episodes import Recorder, check_free, save_episodes
from rlexp.errors import StorageError
from rlexp.experience.actor import Actor
from rlexp.experiment.build import make_actor
from rlexp.experiment.check import check
from rlexp.experiment.compose import conf_dir
from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.extend import read_config
from rlexp.redaction import redacted
from rlexp.storage import refuse_outside
from rlexp.storage.checkpoints import load_tree, tree_digest
from rlexp.types import EnvSpec, Progress


class Saved(NamedTuple):
    """A policy of a saved run, ready to act."""

    run: Path
    which: str  # "final" or "best"
    config: dict[str, Any]  # with the standard evaluation where the run had none
    spec: EnvSpec
    weights: Mapping[str, Tensor]
    progress: Progress  # where the weights were reached
    actor: Actor  # has the weights

    @property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.config, self.spec, self.actor, self.run / "evaluations")


class Recorded(NamedTuple):
    """Episodes that were played for their steps."""

    result: Result
    steps: int
    changed: list[int]  # episodes that were known and came out otherwise


def load_saved(run: Path, which: str, plugins: Sequence[str] = (), device: str | None = None) -> Saved:
    """Read the "final" or "best" weights of a run.

    plugins: packages of the user's; those that the saved file names are not trusted.
    device: in place of the one that the run was made on.

    Raises ConfigError where the folder is no run, StorageError where weights are missing or do not fit, or where its
    evaluations would be written elsewhere.
    """
    config = read_config(run) | ({} if device is None else {"device": device})
    if config.get("evaluation") is None:
        config["evaluation"] = yaml.safe_load((conf_dir() / "evaluation" / "standard.yaml").read_text())
    checked = check(config, trusted_plugins=plugins)
    torch.set_num_threads(checked.config["execution"]["threads"])
    actor = make_actor(checked.config, checked.spec, checked.schema)
    folder = run / "weights" / which
    refuse_outside(run / "evaluations", run)
    try:
        tree = load_tree(folder)
        actor.load_weights(tree["weights"])
        progress = actor.state.progress._replace(env_steps=int(tree["env_steps"]))
    except StorageError as error:
        if folder.exists():
            raise
        if (run / "checkpoints").exists() and any(run.glob("s[0-9]*/weights")):
            raise StorageError(f"{run}: holds several seeds; name one, such as {min(run.glob('s[0-9]*'))}") from error
        when = "they are saved when it has finished" if which == "final" else "its first evaluation saves them"
        raise StorageError(f"{run}: has no {which} weights: {when}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder}: does not fit the run's configuration: {error}") from error
    return Saved(run, which, checked.config, checked.spec, tree["weights"], progress, actor)


def evaluate_saved(
    run: Path, weights: str, episodes: int, policy: str | None, plugins: Sequence[str] = (), device: str | None = None
) -> Result:
    """Evaluate `weights` ("final" or "best") of a run; what is cached for them costs nothing.

    Raises as `load_saved` does.
    """
    saved = load_saved(run, weights, plugins, device)
    return saved.evaluator.evaluate(saved.weights, saved.progress, episodes, policy)


def record_saved(saved: Saved, episodes: int, policy: str | None, directory: Path) -> Recorded:
    """Play the evaluation's episodes and save their steps as data in a new folder (`rlexp.data.episodes`).

    Raises ConfigError, before anything is played, where the folder exists.
    """
    check_free(directory)
    policy = policy or saved.config["evaluation"]["policy"]
    known = saved.evaluator.known(saved.weights, saved.progress, policy).part(range(episodes))
    recorder = Recorder(saved.spec, range(episodes))
    result = saved.evaluator.evaluate(saved.weights, saved.progress, episodes, policy, recorder)
    recorded = recorder.episodes(result.seeds, result.returns, about(saved, policy))
    save_episodes(directory, recorded)
    return Recorded(result, int(recorded.start[-1]), result.changed(known))


def about(saved: Saved, policy: str) -> dict[str, Any]:
    """Where recorded episodes come from, as plain values."""
    digest = tree_digest(saved.run / "weights" / saved.which)
    return {
        "run": str(saved.run),
        "config": redacted(saved.config),
        "policy": policy,
        "weights": {"which": saved.which, "env_steps": saved.progress.env_steps, "sha256": digest},
        "evaluation_seed": saved.config["evaluation"]["seed"],
    }
