"""A saved run, read back: its configuration and its weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from rlexp.errors import StorageError
from rlexp.experiment.build import make_actor
from rlexp.experiment.check import check
from rlexp.experiment.compose import conf_dir
from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.extend import read_config
from rlexp.storage import load_tree


def evaluate_saved(
    run: Path, weights: str, episodes: int, policy: str | None, plugins: Sequence[str] = (), device: str | None = None
) -> Result:
    """Evaluate `weights` ("final" or "best") of a run; what is cached for them costs nothing.

    device: in place of the one that the run was made on.
    plugins: packages of the user's; those that the saved file names are not trusted.
    A run that was made with evaluation=none is evaluated with the standard settings.

    Raises ConfigError where the folder is no run, StorageError where weights are missing or do not fit.
    """
    config = read_config(run) | ({} if device is None else {"device": device})
    if config.get("evaluation") is None:
        config["evaluation"] = yaml.safe_load((conf_dir() / "evaluation" / "standard.yaml").read_text())
    checked = check(config, trusted_plugins=plugins)
    torch.set_num_threads(checked.config["execution"]["threads"])
    actor = make_actor(checked.config, checked.spec, checked.schema)
    tree = load_tree(run / "weights" / weights)
    try:
        actor.load_weights(tree["weights"])
    except (KeyError, ValueError) as error:
        raise StorageError(f"{run / 'weights' / weights}: does not fit the run's configuration: {error}") from error
    progress = actor.state.progress._replace(env_steps=int(tree["env_steps"]))
    evaluator = Evaluator(checked.config, checked.spec, actor, run / "evaluations")
    return evaluator.evaluate(tree["weights"], progress, episodes, policy)
