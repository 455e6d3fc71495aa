"""Fixtures that every test may use. Torch runs on one thread, as it does in a run."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import settings

from rlexp import storage
from rlexp.envs.make import missing_extra
from rlexp.experiment.spaces import declared_spec
from rlexp.types import EnvSpec, Progress

CONF = Path(__file__).resolve().parents[1] / "conf"

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)


def env_config(name: str) -> dict[str, Any]:
    """A file of the `env` group as plain values."""
    node: dict[str, Any] = yaml.safe_load((CONF / "env" / f"{name}.yaml").read_text())
    return node


def env_spec(name: str, time_limit: int | None = None) -> EnvSpec:
    """What `conf/env/<name>.yaml` declares, with another time limit where one is given."""
    spec = declared_spec({**env_config(name), "time_limit": time_limit})
    assert spec is not None
    return spec


def env_choices() -> list[Any]:
    """Every file of the `env` group as a parameter; skipped where its simulator is not installed."""
    choices = []
    for name in sorted(path.stem for path in (CONF / "env").glob("*.yaml")):
        extra = missing_extra(env_config(name)["id"])
        skip = pytest.mark.skipif(extra is not None, reason=f"pip install 'rlexp[{extra}]'")
        choices.append(pytest.param(name, marks=skip))
    return choices


def preset_choices() -> list[Any]:
    """Every file of the `experiment` group as a parameter; skipped where its simulator is not installed."""
    skipped = {choice.values[0]: choice.marks for choice in env_choices()}
    choices = []
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        defaults = yaml.safe_load(path.read_text())["defaults"]
        env = next(node["override /env"] for node in defaults if "override /env" in node)
        choices.append(pytest.param(path.stem, marks=skipped[env]))
    return choices


@pytest.fixture
def progress() -> Callable[..., Progress]:
    """A Progress at a number of environment steps."""

    def make(env_steps: int = 0, total_env_steps: int = 1000, updates: int = 0) -> Progress:
        return Progress(env_steps, updates, total_env_steps)

    return make


@pytest.fixture(scope="module")
def no_compiler() -> Iterator[None]:
    """Whatever imports torch's compiler fails: that takes a second, which every start of a run would pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch._dynamo", None)
        yield


@pytest.fixture(autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """No test outlives a power cut: that things are synced, and in which order, `storage.before_operation` tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no descriptor, too
        yield


@pytest.fixture(autouse=True)
def no_storage_hook() -> Iterator[None]:
    """A test that leaves a hook behind does not fail the next one."""
    yield
    storage.before_operation = None
