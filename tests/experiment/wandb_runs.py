"""W&B runs on the disk, read back with W&B's own reader; and nothing of the account of whoever runs the tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlexp.experiment import wandb_run
from rlexp.storage import read_json

ADDED_BY_WANDB = ("_runtime", "_step", "_timestamp")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, no settings and no server of the person who runs the tests, and none of an earlier test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    for name in set(os.environ) - set(clean):
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "no-netrc"))
    for name in wandb_run.QUIET:  # set by what is tested: put back afterwards
        monkeypatch.setenv(name, wandb_run.QUIET[name])
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # W&B keeps the environment that it saw first


def wandb_folders(outputs: Path) -> list[Path]:
    return sorted((outputs / "wandb").glob("*run-*"))


def inspect(folder: Path) -> dict[str, Any]:
    """What `wandb leet inspect` reads: the run's record, the rows as they were logged, the exit code."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    (run,) = (record["run"] for record in records if record["type"] == "run")
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    exits = [record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"]
    return {"run": run, "rows": [without(row, *ADDED_BY_WANDB) for row in rows], "metrics": metrics, "exits": exits}


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def wait_for(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


def mirrored(directory: Path) -> dict[str, Any] | None:
    """wandb.json once the mirror has ended."""
    path = directory / "wandb.json"
    heard = read_json(path) if path.exists() else {}
    return heard if "exit_code" in heard or "error" in heard else None
