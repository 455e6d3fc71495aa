"""How a run stands, as its status.json says."""

import contextlib
from pathlib import Path
from typing import Any

from rlexp.errors import StorageError
from rlexp.storage import read_json, write_json
from rlexp.storage.locks import locked

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


def read_status(directory: Path) -> dict[str, Any]:
    """`state`, `exit_code`, `results` or `error`; empty where there is no readable status.

    A damaged status loses nothing: the rows and checkpoints say where to go on.
    """
    try:
        status = read_json(directory / "status.json")
    except StorageError:
        return {}
    return status if isinstance(status, dict) else {}


def record_killed(directory: Path, exit_code: int, error: str) -> None:
    """Say in status.json that a run failed whose process was killed. One that goes on again is left alone."""
    with contextlib.suppress(StorageError), locked(directory):
        if read_status(directory).get("state") == RUNNING:
            write_json(directory / "status.json", {"state": FAILED, "exit_code": exit_code, "error": error})


def read_results(directory: Path) -> dict[int, dict[str, Any]]:
    """By seed, `final` and `best` of a finished run; empty where it has none."""
    status = read_status(directory)
    if "seeds" in status:
        return {int(seed): results for seed, results in status["seeds"].items()}
    results = status.get("results")
    return {0: results} if results else {}
