"""One bare Gymnasium environment, and what Gymnasium says of it. Imports no torch: a probing subprocess starts fast."""

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium

import rlexp.envs.probes  # noqa: F401  (registers the probe environments)

EXTRAS = {"gymnasium.envs.box2d.": ("box2d", "Box2D"), "gymnasium.envs.mujoco.": ("mujoco", "mujoco")}
"""Where Gymnasium keeps environments that need more than Gymnasium: rlexp's extra, and the module that it brings."""

REMADE = frozenset({"gymnasium.envs.box2d.bipedal_walker:BipedalWalker"})
"""Environments that carry something over a reset: an episode would not follow from its seed and its actions alone."""


class Remade(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A new environment for each episode (2 ms for BipedalWalker, whose reset takes 20)."""

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        super().__init__(make())
        self._make = make

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.close()
        self.env = self._make()
        return self.env.reset(seed=seed, options=options)


def make_env(env_id: str, kwargs: Mapping[str, Any], plugins: Sequence[str] = ()) -> gymnasium.Env[Any, Any]:
    """The environment without Gymnasium's wrappers for time limits, call order and checks.

    The vector counts time itself, and the wrappers cost more than CartPole does.

    plugins: packages that may register the environment; a process of its own has yet to import them.
    """
    for plugin in plugins:
        importlib.import_module(plugin)
    spec = deepcopy(gymnasium.spec(env_id))
    spec.order_enforce = False
    spec.disable_env_checker = True
    spec.max_episode_steps = None
    make = functools.partial(gymnasium.make, spec, max_episode_steps=-1, **kwargs)
    return Remade(make) if spec.entry_point in REMADE else make()


def missing_extra(env_id: str) -> str | None:
    """The extra of rlexp to install before Gymnasium's environment can be made; None where nothing is missing."""
    spec = gymnasium.registry.get(env_id)
    for prefix, (extra, module) in EXTRAS.items():
        if spec is not None and str(spec.entry_point).startswith(prefix):
            return None if importlib.util.find_spec(module) else extra
    return None


def describe_space(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A space as the configuration declares it. Raises ValueError for a kind that rlexp does not take."""
    if isinstance(space, gymnasium.spaces.Discrete) and int(space.start) == 0:
        return {"kind": "discrete", "n": int(space.n)}
    if isinstance(space, gymnasium.spaces.Box) and space.dtype.kind in "fu":
        described: dict[str, Any] = {"kind": "box", "shape": list(space.shape)}
        low, high = float(space.low.min()), float(space.high.max())
        if math.isfinite(low) and math.isfinite(high) and (space.low == low).all() and (space.high == high).all():
            described |= {"low": low, "high": high}
        return described
    raise ValueError(f"the space {space} is neither Discrete from 0 nor a Box of real numbers")


def describe(env_id: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Spaces, registered time limit and whether there is a finite model, in the form of the `env` group."""
    env = make_env(env_id, kwargs)
    try:
        return {
            "of": env_id,
            "observation": describe_space(env.observation_space),
            "action": describe_space(env.action_space),
            "time_limit": gymnasium.spec(env_id).max_episode_steps,
            "has_model": hasattr(env.unwrapped, "P"),
        }
    finally:
        env.close()
