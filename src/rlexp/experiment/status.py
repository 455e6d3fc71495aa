"""How a run stands, as its status.json says."""

from pathlib import Path
from typing import Any

from rlexp.errors import StorageError
from rlexp.storage import read_json

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
