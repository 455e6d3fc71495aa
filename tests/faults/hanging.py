"""A user's package with an environment that hangs when it is told to: a file appears in the current folder."""

from pathlib import Path

PACKAGE = '''
import os
import re
import time

import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

HANGS = {
    "sleep": lambda: time.sleep(1000),
    "spin": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),  # C code that keeps the interpreter for years
}


def hang(place):
    """`hang-<place>` holds how; the process says that it does by a file `hung-<its number>`."""
    told = f"hang-{place}"
    if os.path.exists(told):
        with open(told) as file:
            how = file.read()
        with open(f"hung-{os.getpid()}", "w"):
            pass
        HANGS[how]()


class Hanging(CartPoleEnv):
    def __init__(self):
        hang("make")
        super().__init__()

    def step(self, action):
        hang("step")
        return super().step(action)

    def close(self):
        hang("close")
        super().close()


gymnasium.register("Hanging-v0", entry_point=Hanging, max_episode_steps=20)
'''

DECLARED = """
id: Hanging-v0
kwargs: {}
time_limit: null
declared:
  of: Hanging-v0
  observation: {kind: box, shape: [4]}
  action: {kind: discrete, n: 2}
  time_limit: 20
  has_model: false
"""


def write_package(folder: Path) -> list[str]:
    """Put the package into the current folder to be; returns the words of a command line that use it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hanging_envs.py").write_text(PACKAGE)
    (folder / "my_conf" / "env").mkdir(parents=True)
    (folder / "my_conf" / "env" / "hanging.yaml").write_text(DECLARED)
    return ["--config-dir", "my_conf", "env=hanging", "plugins=[hanging_envs]"]


def tell(folder: Path, place: str, how: str) -> None:
    """place: make, step or close.  how: sleep, which a signal wakes, or spin, which nothing does."""
    aside = folder / "to-be"
    aside.write_text(how)
    aside.rename(folder / f"hang-{place}")


def hung(folder: Path) -> list[int]:
    """The processes that hang."""
    return [int(path.name.removeprefix("hung-")) for path in folder.glob("hung-*")]
