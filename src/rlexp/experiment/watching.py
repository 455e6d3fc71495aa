"""Episodes of a saved policy to be seen: those that its evaluation measured, on a screen or in a video."""

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal

import numpy as np

from rlexp.envs.drawn import Drawn, frames_per_second, opengl_hint, render_modes
from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import Episode
from rlexp.errors import ConfigError, EnvironmentFailure
from rlexp.experiment.playing import episode_seed, play
from rlexp.experiment.saved import Saved
from rlexp.experiment.video import check_video, write_video

Each = Callable[[int, Episode], None]
"""Told of every episode when it is over, with its number."""

Mode = Literal["human", "rgb_array"]


def show(saved: Saved, numbers: range, policy: str, each: Each) -> None:
    """Play episodes in the environment's own window, at its own pace.

    Raises ConfigError where it has none, EnvironmentFailure where it cannot be drawn.
    """
    check_drawn(saved, "human")
    for _ in _pictures(saved, numbers, policy, "human", each):
        pass


def film(saved: Saved, numbers: range, policy: str, path: Path, fps: float | None, each: Each) -> tuple[int, float]:
    """Play episodes into one video. Returns the number of pictures, and how many a second are shown.

    fps: None: as many as the environment says.
    Raises ConfigError where it draws no pictures or the file's ending is unknown, EnvironmentFailure where it cannot
    be drawn, StorageError where the file cannot be written.
    """
    check_video(path)
    own = check_drawn(saved, "rgb_array")
    with contextlib.closing(_pictures(saved, numbers, policy, "rgb_array", each)) as pictures:
        return write_video(path, pictures, fps or own), fps or own


def check_drawn(saved: Saved, mode: Mode) -> float:
    """How many pictures a second the environment wants; raises ConfigError where it draws none.

    Gymnasium itself shows pictures in a window where an environment has no window of its own.
    """
    env_id = saved.spec.id
    try:
        env = make_env(env_id, saved.config["env"]["kwargs"])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise EnvironmentFailure(f"{env_id} could not be made: {reason}{opengl_hint(env_id)}") from error
    modes, fps = render_modes(env), frames_per_second(env)
    env.close()
    if not {mode, "rgb_array"} & set(modes):
        can = f"it can only be rendered as {', '.join(modes)}" if modes else "it has no render mode"
        raise ConfigError(f"{env_id} cannot be watched: {can}; rlexp-evaluate gives its numbers")
    return fps


def _pictures(saved: Saved, numbers: range, policy: str, mode: Mode, each: Each) -> Generator[np.ndarray]:
    """Each picture as it is drawn: none in mode "human"."""
    drawn: list[np.ndarray] = []
    settings, env = saved.config["evaluation"], saved.config["env"]

    def make() -> Drawn:
        made = make_env(env["id"], {**env["kwargs"], "render_mode": mode})
        return Drawn(made, drawn.append if mode == "rgb_array" else None, env["id"])

    vector = SyncVector(make, saved.spec, 1, episode_seed(settings, numbers, 1))
    try:
        turns = play(vector, saved.actor, saved.progress, settings, numbers, explore=policy == "sampled")
        for turn in turns:
            yield from drawn
            drawn.clear()
            for n, episode in turn.finished.items():
                each(n, episode)
    finally:
        vector.close()
