"""Whether there is the memory for a replay buffer: NumPy would promise it, and the run be killed hours later."""

import contextlib
import math
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlexp.data.uniform import bytes_of_transition
from rlexp.errors import ResourceError
from rlexp.experiment.members import seeds_of
from rlexp.types import EnvSpec

GROUPS = Path("/sys/fs/cgroup")


def check_memory(config: Mapping[str, Any], spec: EnvSpec) -> None:
    """Raises ResourceError where `experience.capacity` transitions of each seed do not fit.

    A ring is filled from its start: what a short run does not reach takes addresses, which a limit on the process
    counts, and no memory.
    """
    capacity = config["experience"].get("capacity")
    if capacity is None:
        return
    each = bytes_of_transition(spec) * len(seeds_of(config))
    filled = min(capacity, config["total_env_steps"])
    for places, available in ((capacity, max(0.0, _of_process())), (filled, available_memory())):
        if places * each > available:
            raise ResourceError(
                f"experience.capacity={capacity}: needs {places * each / 2**30:.1f} GiB of memory, "
                f"{available / 2**30:.1f} GiB are available; the largest that fits is {int(available // each)}"
            )


def available_memory() -> float:
    """In bytes: the least of what the machine, each control group and the limits of this process leave."""
    return max(0.0, min(_of_machine(), *_of_groups(), _of_process()))


def _of_machine() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def _of_groups() -> Iterator[float]:
    """Of this process' control groups, version 1 and 2, and those that they lie in. Files that can be dropped count as
    free."""
    yield math.inf
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            top, limit, usage, dropped = GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, usage = GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            dropped = "total_inactive_file"
        else:
            continue
        own = top / name.strip("/")
        for folder in [own, *own.parents]:
            with contextlib.suppress(OSError, ValueError, KeyError):
                allowed = int((folder / limit).read_text())  # "max" is no number
                told = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                yield float(allowed - int((folder / usage).read_text()) + int(told[dropped]))
            if folder == top:
                break


def _of_process() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    with contextlib.suppress(OSError, ValueError):
        return float(limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return float(limit)
