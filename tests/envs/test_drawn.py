"""What is drawn of an episode: its start and every step, and nothing of the next one."""

import re
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlexp.envs.drawn import Drawn, frames_per_second, opengl_hint, render_modes
from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.errors import EnvironmentFailure
from rlexp.types import Box, Discrete, EnvSpec
from tests.envs.toys import Counter

SPEC = EnvSpec("Counter-v0", Box((2,)), Discrete(2), 100, False)


class Painter(Counter):
    """Paints the step within the episode; at step 2 what `odd` holds."""

    def __init__(self, odd: Any = None, **limits: int) -> None:
        super().__init__(**limits)
        self._odd = odd

    def render(self) -> Any:
        if self.time == 2 and isinstance(self._odd, Exception):
            raise self._odd
        if self.time == 2 and self._odd is not None:
            return self._odd
        return np.full((2, 2, 3), self.time, np.uint8)


def drawn(steps: int, env: gymnasium.Env[Any, Any]) -> list[int]:
    seen: list[np.ndarray] = []
    vector = SyncVector(lambda: Drawn(env, seen.append, "Counter-v0"), SPEC, 1, lambda i, k: k)
    vector.start()
    for _ in range(steps):
        vector.step(np.zeros(1, np.int64))
    return [int(picture[0, 0, 0]) for picture in seen]


@pytest.mark.parametrize("limits", [{"ends_after": 3}, {"cuts_after": 3}])
def test_an_episode_is_drawn_from_its_start_to_its_last_step(limits: dict[str, int]) -> None:
    """A vector resets at once; the start of an episode that is not played is not drawn."""
    assert drawn(3, Painter(**limits)) == [0, 1, 2, 3]
    assert drawn(5, Painter(**limits)) == [0, 1, 2, 3, 0, 1, 2]


def test_an_environment_with_a_window_of_its_own_is_not_asked() -> None:
    env = Drawn(Painter(RuntimeError("not to be called")), None, "Counter-v0")
    env.reset(seed=0)
    assert [env.step(0)[1] for _ in range(3)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (RuntimeError("no brush"), "Counter-v0: cannot be drawn: RuntimeError: no brush"),
        ([1], "Counter-v0: drew list, not a picture"),
        (np.zeros((2, 2, 3)), "Counter-v0: drew ndarray, not a picture"),
        (np.zeros((2, 2), np.uint8), "Counter-v0: drew ndarray, not a picture"),
    ],
)
def test_what_is_no_picture_is_one_line(odd: Any, message: str) -> None:
    with pytest.raises(EnvironmentFailure, match=f"^{re.escape(message)}"):
        drawn(3, Painter(odd))


def test_what_an_environment_says_of_its_drawing() -> None:
    env = make_env("FrozenLake-v1", {})
    assert {"human", "rgb_array"} <= set(render_modes(env))
    assert frames_per_second(env) == 4
    assert (render_modes(Counter()), frames_per_second(Counter())) == ((), 30)


def test_mujoco_alone_is_said_to_need_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    assert "MUJOCO_GL=egl" in opengl_hint("Hopper-v5")
    assert opengl_hint("CartPole-v1") == opengl_hint("Unknown-v0") == ""
