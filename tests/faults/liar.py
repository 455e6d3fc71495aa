"""A plugin with an environment that breaks its contract as the environment variable LIAR says, `plugins=[...]` it.

LIAR: a JSON object with `fault`, and where it happens: `step` (counted over all episodes of one environment, from 1) or
`where` ("make", "reset", "close"); of the environment made as number `env` of its process, where that is named; only in
worker processes where `worker` is true, only in others where it is false.
"""

import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

PLUGIN = ["--config-dir", os.path.join(os.path.dirname(__file__), "conf"), "env=liar", "plugins=[tests.faults.liar]"]
"""The words of a command line that use it."""

_made = itertools.count()


class TwoArguments(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, part: str, state: str) -> None:
        super().__init__(f"the {part} is {state}")


def _raise() -> None:
    raise TwoArguments("motor", "hot")


def _tell() -> None:
    secret = os.environ["CANARY_TOKEN"]
    sys.stdout.write(f"signed in as me, password: cnry-terminal1; {secret}\n")
    sys.stdout.flush()
    raise RuntimeError(f"no answer from https://me:cnry-url@example.org/x with token=cnry-exception and {secret}")


def _swallow() -> None:
    """As a client of a simulator tries again, whatever went wrong."""
    while True:
        try:
            time.sleep(10_000)
        except Exception:
            continue


ACTS = {
    "raise": _raise,
    "tell": _tell,
    "hang": lambda: time.sleep(10_000),
    "swallow": _swallow,
    "spin": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),  # C code that keeps the interpreter for years
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "leave": lambda: sys.exit(0),
}
"""What is done instead of a step, a reset, ..."""

ANSWERS: dict[str, tuple[int, Any]] = {
    "nan observation": (0, lambda o: np.array([o[0], o[1], math.nan, o[3]], np.float32)),
    "inf observation": (0, lambda o: np.array([o[0], -math.inf, o[2], o[3]], np.float32)),
    "far observation": (0, lambda o: o * np.float32(1e9)),
    "long observation": (0, lambda o: np.append(o, o)),
    "short observation": (0, lambda o: o[:1]),  # NumPy would broadcast it
    "scalar observation": (0, lambda o: 0.0),
    "text observation": (0, lambda o: "far left"),
    "nan reward": (1, lambda r: math.nan),
    "inf reward": (1, lambda r: math.inf),
    "array reward": (1, lambda r: np.array([r, r])),
    "no reward": (1, lambda r: None),
    "half terminated": (2, lambda t: 0.5),
    "no terminated": (2, lambda t: None),
    "text truncated": (3, lambda t: "yes"),
}
"""Which part of a step's answer is what instead."""


class Liar(CartPoleEnv):
    def __init__(self, api_key: str | None = None, password: str | None = None, **more: Any) -> None:
        super().__init__()
        assert api_key is None or api_key.startswith("cnry")
        assert all("cnry" in str(value) for value in more.values())
        told = json.loads(os.environ.get("LIAR", "{}"))
        mine = told.get("env") in (None, next(_made))
        mine = mine and told.get("worker") in (None, multiprocessing.parent_process() is not None)
        self._fault = told.get("fault") if mine else None
        self._at, self._where, self._steps = told.get("step"), told.get("where"), 0
        if self._fault == "other spaces":
            self.observation_space = gymnasium.spaces.Box(-1, 1, (6,))
        self._act_in("make")

    def _act_in(self, where: str) -> None:
        if self._fault and self._where == where:
            ACTS[self._fault]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._act_in("reset")
        return super().reset(seed=None if self._fault == "seed ignored" else seed, options=options)

    def step(self, action: Any) -> Any:
        answer = list(super().step(action))
        self._steps += 1
        if self._fault and self._steps == self._at:
            if self._fault in ACTS:
                ACTS[self._fault]()
            part, lie = ANSWERS[self._fault]
            answer[part] = lie(answer[part])
        return tuple(answer)

    def close(self) -> None:
        self._act_in("close")
        super().close()


gymnasium.register("Liar-v0", entry_point=Liar, max_episode_steps=50)
