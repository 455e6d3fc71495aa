"""A saved run, read back: its configuration and its weights."""

from collections.abc import Sequence
from pathlib import Path

from rlexp.errors import ConfigError, StorageError
from rlexp.experience.actor import Actor
from rlexp.experiment.build import make_learner
from rlexp.experiment.check import check
from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.extend import read_config
from rlexp.storage import load_tree


def evaluate_saved(run: Path, weights: str, episodes: int, policy: str | None, plugins: Sequence[str] = ()) -> Result:
    """Evaluate `weights` ("final" or "best") of a run; what is cached for them costs nothing.

    plugins: packages of the user's; those that the saved file names are not trusted.
    Raises ConfigError where the folder is no run or has no evaluation settings, StorageError where weights are missing
    or do not fit.
    """
    checked = check(read_config(run), trusted_plugins=plugins)
    if checked.config["evaluation"] is None:
        raise ConfigError(f"{run}: was run with evaluation=none, so it has no evaluation settings")
    algorithm, state = make_learner(checked.config, checked.spec, checked.schema)
    tree = load_tree(run / "weights" / weights)
    try:
        state.load_weights(tree["weights"])
    except (KeyError, ValueError) as error:
        raise StorageError(f"{run / 'weights' / weights}: does not fit the run's configuration: {error}") from error
    state.progress = state.progress._replace(env_steps=int(tree["env_steps"]))
    evaluator = Evaluator(checked.config, checked.spec, Actor(algorithm, state, checked.spec), run / "evaluations")
    return evaluator.evaluate(state, episodes, policy)
