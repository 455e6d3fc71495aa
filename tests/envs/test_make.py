"""What Gymnasium says of an environment, and what the configuration declares of it."""

import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from rlexp.envs.make import describe, describe_space, make_env, missing_extra
from tests.conftest import env_choices, env_config


@pytest.mark.parametrize("name", env_choices())
def test_declarations_are_what_gymnasium_says(name: str) -> None:
    node = env_config(name)
    declared = node["declared"]
    said = describe(node["id"], node["kwargs"])
    if said["time_limit"] is None:  # registered without one: the declaration gives it
        assert name == "cliff_walking"
        said["time_limit"] = declared["time_limit"]
    assert declared == said
    assert declared["of"] == node["id"]
    assert isinstance(declared["time_limit"], int)
    assert declared["time_limit"] > 0


@pytest.mark.parametrize("name", ["mountain_car", "frozen_lake", "pendulum"])
def test_no_wrapper_counts_time_or_slows_a_step(name: str) -> None:
    node = env_config(name)
    env = make_env(node["id"], node["kwargs"])
    assert env is env.unwrapped
    env.reset(seed=0)
    for _ in range(node["declared"]["time_limit"] + 1):
        truncated = env.step(env.action_space.sample())[3]
        assert not truncated


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("BipedalWalker-v3", "Box2D", "box2d"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
        ("CartPole-v1", "mujoco", None),
        ("NoSuchEnvironment-v0", "mujoco", None),
    ],
)
def test_the_missing_extra_is_named(
    env_id: str, module: str, extra: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    assert missing_extra(env_id) == extra


def test_the_registry_is_left_as_it_was() -> None:
    make_env("CartPole-v1", {})
    assert gymnasium.spec("CartPole-v1").max_episode_steps == 500
    assert gymnasium.spec("CartPole-v1").order_enforce


def test_arguments_reach_the_constructor() -> None:
    env = make_env("FrozenLake-v1", {"is_slippery": False})
    assert all(len(outcomes) == 1 for actions in env.unwrapped.P.values() for outcomes in actions.values())


@pytest.mark.parametrize(
    ("space", "described"),
    [
        (gymnasium.spaces.Discrete(3), {"kind": "discrete", "n": 3}),
        (gymnasium.spaces.Box(-1, 2, (2, 3)), {"kind": "box", "shape": [2, 3], "low": -1.0, "high": 2.0}),
        (gymnasium.spaces.Box(-np.inf, 2, (2,)), {"kind": "box", "shape": [2]}),
        (gymnasium.spaces.Box(np.float32([0, -1]), np.float32([1, 1])), {"kind": "box", "shape": [2]}),
        (
            gymnasium.spaces.Box(0, 255, (4, 4, 1), np.uint8),
            {"kind": "box", "shape": [4, 4, 1], "low": 0.0, "high": 255.0},
        ),
    ],
)
def test_describe_space(space, described: dict) -> None:
    assert describe_space(space) == described


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(3, start=1),
        gymnasium.spaces.MultiDiscrete([2, 2]),
        gymnasium.spaces.Box(-5, 5, (2,), np.int32),
        gymnasium.spaces.Dict(),
    ],
)
def test_spaces_that_are_not_taken_are_refused(space) -> None:
    with pytest.raises(ValueError, match="neither Discrete from 0 nor a Box"):
        describe_space(space)


def ask(request: dict) -> dict:
    command = [sys.executable, "-m", "rlexp.envs.describe", json.dumps(request)]
    ours, held = os.pipe()  # it ends with whoever holds its input
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, stdin=ours)
    finally:
        os.close(ours)
        os.close(held)
    return json.loads(answer.stdout.splitlines()[-1])


def test_the_describing_process_answers_in_a_line() -> None:
    answer = ask({"id": "MountainCar-v0", "kwargs": {}, "plugins": []})
    assert answer["spec"] == env_config("mountain_car")["declared"]
    answer = ask({"id": "NoSuchEnvironment-v0", "kwargs": {}, "plugins": []})
    assert list(answer) == ["error"]
    assert "NoSuchEnvironment" in answer["error"]
    assert "\n" not in answer["error"]
