"""A user's package with an environment that raises, hangs, kills its process, fills the memory or turns non-finite, in
jobs told by FAULTS.
"""

from pathlib import Path

PACKAGE = '''
import math
import os
import resource
import signal
import sys
import time

import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Faulty(CartPoleEnv):
    """FAULTS: `fault:override,override;...`; a fault is for the job whose command line has these overrides."""

    def __init__(self):
        super().__init__()
        told = [fault.partition(":") for fault in os.environ.get("FAULTS", "").split(";") if fault]
        self.faults = [name for name, _, overrides in told if set(overrides.split(",")) <= set(sys.argv)]
        self.steps = 0

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps > 20 and "raise" in self.faults:
            raise RuntimeError("the pole broke")
        if self.steps > 20 and "kill" in self.faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps > 20 and "hang" in self.faults:
            time.sleep(3600)
        if self.steps > 20 and "memory" in self.faults:
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            self.hoard = bytes(1 << 31)
        if self.steps > 20 and "exit" in self.faults:
            os._exit(0)
        if self.steps > 20 and "nan" in self.faults:
            reward = math.nan
        return observation, reward, terminated, truncated, info


gymnasium.register("Faulty-v0", entry_point=Faulty, max_episode_steps=20)
'''

DECLARED = """
id: Faulty-v0
kwargs: {}
time_limit: null
declared:
  of: Faulty-v0
  observation: {kind: box, shape: [4]}
  action: {kind: discrete, n: 2}
  time_limit: 20
  has_model: false
"""

OVERRIDES = [
    "env=faulty", "plugins=[faulty_envs]", "algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=16",
    "algorithm.num_epochs=1", "algorithm.num_minibatches=1", "total_env_steps=512", "evaluation.episodes=1",
    "evaluation.final_episodes=2", "evaluation.num_envs=1",
]  # fmt: skip


def write_package(folder: Path) -> list[str]:
    """Put the package into the current folder to be; returns the words of a command line that use it."""
    (folder / "faulty_envs.py").write_text(PACKAGE)
    (folder / "my_conf" / "env").mkdir(parents=True)
    (folder / "my_conf" / "env" / "faulty.yaml").write_text(DECLARED)
    return ["--config-dir", "my_conf", *OVERRIDES]
