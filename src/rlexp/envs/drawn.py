"""An environment whose every step is drawn: on the screen, or handed over as a picture."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from rlexp.errors import EnvironmentFailure

Show = Callable[[np.ndarray], None]
"""Takes a picture, [H, W, 3] uint8."""


class Drawn(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Draws before the first step of an episode and after every step, the last one too.

    Not at the reset: a vector begins the next episode at once, and the one after the last is not to be seen.

    Args:
        env: made with a `render_mode`.
        show: gets the pictures; None where the environment shows them itself.
        env_id: for an error.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], show: Show | None, env_id: str) -> None:
        super().__init__(env)
        self._show = show
        self._id = env_id
        self._at_start = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._at_start = True
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._at_start:
            self._draw()
            self._at_start = False
        answer = self.env.step(action)
        self._draw()
        return answer

    def _draw(self) -> None:
        if self._show is None:
            return
        try:
            picture: Any = self.env.render()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise EnvironmentFailure(f"{self._id}: cannot be drawn: {reason}{opengl_hint(self._id)}") from error
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            raise EnvironmentFailure(f"{self._id}: drew {type(picture).__name__}, not a picture [H, W, 3] uint8")
        self._show(picture)


def opengl_hint(env_id: str) -> str:
    """What to try where MuJoCo fails, which draws with OpenGL; empty for other environments."""
    spec = gymnasium.registry.get(env_id)
    if "mujoco" not in sys.modules and "mujoco" not in str(spec and spec.entry_point):
        return ""
    return "; try MUJOCO_GL=egl, which needs a graphics driver, or MUJOCO_GL=osmesa, which needs the library OSMesa"


def render_modes(env: gymnasium.Env[Any, Any]) -> Sequence[str]:
    """What an environment says it can draw; "rgb_array" is pictures, "human" its own window."""
    return tuple(env.metadata.get("render_modes") or ())


def frames_per_second(env: gymnasium.Env[Any, Any]) -> float:
    """At which its steps look as fast as they are meant; 30 where it does not say."""
    return float(env.metadata.get("render_fps") or 30)
