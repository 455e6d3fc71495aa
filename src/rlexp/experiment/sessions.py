"""What a run cost, and whether it is still exact: sessions.json, one entry for each time that the run was started."""

import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlexp.errors import StorageError
from rlexp.experiment.intervals import Every
from rlexp.storage import read_json, write_json
from rlexp.types import Progress, Update

EXACT = ("rlexp", "torch", "numpy", "gymnasium")
"""Packages whose version may change the numbers."""


class Sessions:
    """A callback that writes the costs down every `interval` environment steps: a killed session loses little of them.

    A run is exact while each session had the same arithmetic (device, threads, programs, processor, versions), each
    environment came back as it was, and rows that are made again come out as they were. Once it is not, it stays so,
    and `inexact` says why.
    """

    def __init__(self, directory: Path, interval: int) -> None:
        self._path = directory / "sessions.json"
        self._every = Every(interval)
        try:
            earlier = read_json(self._path)["sessions"]
        except (StorageError, KeyError, TypeError):
            earlier = []  # a run that begins; a damaged file costs the history, never the run
        self._earlier: list[dict[str, Any]] = earlier if isinstance(earlier, list) else []
        self._session: dict[str, Any] = {}
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def begin(
        self, env_steps: int, provenance: Mapping[str, Any], execution: Mapping[str, Any], inexact: Sequence[str]
    ) -> list[str]:
        """Note how this session computes; returns why the run is no longer exact, as far as it is new."""
        self._every.resume(env_steps)
        arithmetic = {
            "device": provenance["device"],
            **{key: execution[key] for key in ("threads", "programs", "compile")},
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS"),
            "processor": f"{provenance['machine']['processor']} {provenance['machine']['torch']}",
            **{package: provenance["versions"][package] for package in EXACT},
        }
        reasons = list(inexact)
        if env_steps and self._earlier:
            before = self._earlier[-1].get("arithmetic", {})
            changed = [key for key, now in arithmetic.items() if before.get(key) != now]
            reasons += [f"{key} {before.get(key)} -> {arithmetic[key]} at env_steps={env_steps}" for key in changed]
        self._session = {"from_env_steps": env_steps, "arithmetic": arithmetic, "inexact": reasons}
        self.write()
        return reasons

    def end_exactness(self, reason: str) -> None:
        """Something that shows only while the run goes on."""
        self._session["inexact"].append(reason)
        self.write()

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Any) -> str | None:
        if self._every.due(progress.env_steps):
            self.write()
        return None

    def write(self) -> None:
        """The file with this session's costs up to now."""
        scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS
        self._session["cost"] = {
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(time.process_time() - self._cpu, 3),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
        }
        sessions = [*self._earlier, self._session]
        reasons = [reason for session in sessions for reason in session.get("inexact", [])]
        costs = [session.get("cost", {}) for session in sessions]
        total = {key: round(sum(cost.get(key, 0.0) for cost in costs), 3) for key in ("wall_s", "cpu_s")}
        write_json(self._path, {"exact": not reasons, "inexact": reasons, "cost": total, "sessions": sessions})
