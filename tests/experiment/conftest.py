"""Fixtures of more than one file."""

from pathlib import Path

import pytest

from tests.experiment.support import TINY, run_in

SAVED_RUNS = {
    "pendulum": ["env=pendulum", "experience.rollout_length=10", "env.time_limit=12"],
    "frozen_lake": ["algorithm=value_iteration", "env=frozen_lake", "total_env_steps=300"],
}


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each name; what is done there must leave weights and configuration as they are."""
    outputs = tmp_path_factory.mktemp("runs")
    line = [*TINY, "total_env_steps=400", "evaluation.num_envs=3", "evaluation.episodes=1"]
    return {name: run_in(outputs, *line, *of_run) for name, of_run in SAVED_RUNS.items()}
