"""What the presets learn, on seeds fixed beforehand. Minutes each: `pytest -m slow tests/learning`."""

from pathlib import Path

import pytest

from rlexp.experiment.status import read_status
from tests.experiment.support import run_in

BARS = {
    "ppo_cartpole": 475.0,
    "a2c_cartpole": 475.0,
    "reinforce_cartpole": 450.0,
    "dqn_cartpole": 475.0,
    "ppo_acrobot": -90.0,
    "a2c_acrobot": -90.0,
    "sac_pendulum": -200.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("experiment", BARS)
def test_final_weights_reach_the_bar(experiment: str, seed: int, tmp_path: Path) -> None:
    """Deterministic policy, 200 episodes, each seed."""
    folder = run_in(tmp_path, f"experiment={experiment}", f"seed={seed}", "logger=local", "display=none")
    final = read_status(folder)["results"]["final"]
    assert final["episodes"] == 200
    assert final["return"] >= BARS[experiment]
