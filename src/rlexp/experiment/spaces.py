"""What is known of an environment before it is made: declared in YAML, or asked of a probe in a subprocess."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from rlexp.errors import ConfigError
from rlexp.types import Box, Discrete, EnvSpec, Space

PROBE_DEADLINE = 60.0  # seconds; making an environment may import a simulator

_probed: dict[str, dict[str, Any]] = {}


def declared_spec(env: Mapping[str, Any]) -> EnvSpec | None:
    """The spec that the YAML declares, or None where `env.id` is another environment than the declared one."""
    declared = env["declared"]
    return _spec(env, declared) if declared.get("of") == env["id"] and not env["kwargs"] else None


def probed_spec(env: Mapping[str, Any], plugins: list[str]) -> EnvSpec:
    """Make the environment once, in a process of its own with a deadline, and ask it.

    Raises ConfigError where it cannot be made, hangs, or has spaces that rlexp does not take.
    """
    request = json.dumps({"id": env["id"], "kwargs": env["kwargs"], "plugins": plugins}, sort_keys=True)
    if request not in _probed:
        _probed[request] = _ask(env["id"], request)
    return _spec(env, _probed[request])


def _ask(env_id: str, request: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rlexp.envs.describe", request]
    ours, held = os.pipe()
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_DEADLINE, stdin=ours)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"env.id={env_id}: was not made within {PROBE_DEADLINE:g} s; check that it starts") from None
    finally:
        os.close(ours)
        os.close(held)
    lines = answer.stdout.strip().splitlines()
    try:
        parsed: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise ConfigError(
            f"env.id={env_id}: the process that made it died (status {answer.returncode}): {last}"
        ) from None
    if "error" in parsed:
        raise ConfigError(f"env.id={env_id}: cannot be made: {parsed['error']}")
    spec: dict[str, Any] = parsed["spec"]
    return spec


def _spec(env: Mapping[str, Any], known: Mapping[str, Any]) -> EnvSpec:
    time_limit = env["time_limit"] if env["time_limit"] is not None else known.get("time_limit")
    if time_limit is None:
        raise ConfigError(f"env.id={env['id']}: has no time limit of its own; set env.time_limit=STEPS")
    try:
        return EnvSpec(
            id=env["id"],
            observation=_space(known["observation"]),
            action=_space(known["action"]),
            time_limit=int(time_limit),
            has_model=bool(known["has_model"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"env.declared: is not a description of spaces ({type(error).__name__}: {error})") from error


def _space(node: Mapping[str, Any]) -> Space:
    if node["kind"] == "discrete":
        return Discrete(_size(node["n"]))
    if node["kind"] == "box":
        shape = tuple(_size(size) for size in node["shape"])
        return Box(shape, float(node.get("low", -math.inf)), float(node.get("high", math.inf)))
    raise ValueError(f"kind {node['kind']}")


def _size(value: Any) -> int:
    if int(value) < 1:
        raise ValueError(f"{value} is no size")
    return int(value)
