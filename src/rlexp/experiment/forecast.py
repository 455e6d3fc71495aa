"""What a run will write, and whether it fits: a disk that would be full at night is seen in the evening."""

import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlexp.data.uniform import bytes_of_transition
from rlexp.errors import ResourceError
from rlexp.experiment.intervals import interval_of
from rlexp.experiment.members import seeds_of
from rlexp.storage import size_of
from rlexp.types import EnvSpec, Seeds

ROW, MIRRORED = 1200, 2500  # bytes of a row of some 25 metrics, and of what W&B keeps of it
MOMENTS = 2  # numbers that an optimizer keeps for each parameter, at most
TOLD_FROM = 2**30


class Forecast(NamedTuple):
    """Bytes, from above but for environments whose open episodes are long."""

    checkpoint: int
    kept: int  # checkpoints on the disk at once: those that are kept, and one that is being written
    weights: int  # final and best
    rows: int  # and what W&B makes of them

    @property
    def total(self) -> int:
        return self.checkpoint * self.kept + self.weights + self.rows

    def __str__(self) -> str:
        return (
            f"{readable(self.total)} ({self.kept} checkpoints of {readable(self.checkpoint)}, rows of "
            f"{readable(self.rows)})"
        )


def forecast(config: Mapping[str, Any], spec: EnvSpec, state: Seeds) -> Forecast:
    """What a run of a checked configuration leaves in its folder and in W&B's."""
    seeds, total = len(seeds_of(config)), config["total_env_steps"]
    parameters = sum(
        values.numel() * values.element_size() for index in range(seeds) for values in state.weights_of(index).values()
    )
    places = min(config["experience"].get("capacity", 0), total)
    replay = seeds * places * bytes_of_transition(spec)
    rows = seeds * (total // interval_of(config, "logger") + 1)
    each = ROW if config["logger"]["wandb"] is None else ROW + MIRRORED
    return Forecast(parameters * (1 + MOMENTS) + replay, config["checkpoint"]["keep"] + 1, 2 * parameters, rows * each)


def check_space(expected: Forecast, directory: Path) -> str | None:
    """A line for a person where much will be written.

    directory: the run's; what an earlier session of it left there counts as written.
    Raises ResourceError where the disk, or the size that a file may have, is too small.
    """
    free = shutil.disk_usage(directory).free
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    remedy = "lower experience.capacity or checkpoint.keep, raise logger.interval, or set outputs to another disk"
    if expected.total - size_of(directory) > free:
        raise ResourceError(f"{directory}: the run will write {expected} and {readable(free)} are free; {remedy}")
    if largest != resource.RLIM_INFINITY and expected.checkpoint > largest:
        raise ResourceError(
            f"{directory}: a checkpoint will have {readable(expected.checkpoint)} and a file of this process may have "
            f"{readable(largest)} (ulimit -f); {remedy}"
        )
    return f"will write {expected}; {readable(free)} are free" if expected.total > TOLD_FROM else None


def readable(size: float) -> str:
    """1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
