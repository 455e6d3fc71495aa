"""One bare Gymnasium environment, and what Gymnasium says of it. Imports no torch: a probing subprocess starts fast."""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import gymnasium

import rlexp.envs.probes  # noqa: F401  (registers the probe environments)


def make_env(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """The environment without Gymnasium's wrappers for time limits, call order and checks.

    The vector counts time itself, and the wrappers cost more than CartPole does.
    """
    spec = deepcopy(gymnasium.spec(env_id))
    spec.order_enforce = False
    spec.disable_env_checker = True
    spec.max_episode_steps = None
    return gymnasium.make(spec, max_episode_steps=-1, **kwargs)


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
