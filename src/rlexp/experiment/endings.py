"""What status.json says of a run: at work, finished, or how it failed."""

import contextlib
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlexp.errors import EnvironmentFailure, Interrupted, NonFiniteError, ResourceError, RlexpError
from rlexp.experiment.members import Failures
from rlexp.experiment.signals import Signals
from rlexp.experiment.status import FAILED, FINISHED, INTERRUPTED, read_status
from rlexp.redaction import redact
from rlexp.storage import write_json

Results = Mapping[int, Mapping[str, Any]]
"""By seed: `final` and `best`, each with return, return_std, episodes, env_steps."""


def finish(directory: Path, folders: Mapping[int, Path], results: Results, failures: Failures) -> None:
    """Say how each seed and the run ended; raises NonFiniteError where seeds were frozen."""
    for seed, folder in folders.items():
        if seed not in failures.messages:
            done = {"state": FINISHED, "exit_code": 0, "results": results.get(seed, {})}
            write_json(folder / "status.json", done)
    if failures.messages:
        named = "; ".join(f"seed {seed}: {message}" for seed, message in failures.messages.items())
        raise NonFiniteError(f"{named}; the other seeds finished")
    if directory not in folders.values():
        returns = [of_seed["final"]["return"] for of_seed in results.values()]
        mean = {"final": {"return": statistics.fmean(returns)}} if returns else {}
        done = {"state": FINISHED, "exit_code": 0, "results": mean, "seeds": results}
        write_json(directory / "status.json", done)


def record(directory: Path, folders: Mapping[int, Path], status: Mapping[str, Any]) -> None:
    for folder in dict.fromkeys([directory, *folders.values()]):
        write_json(folder / "status.json", status)


def as_failure(error: BaseException, directory: Path, signals: Signals) -> BaseException:
    """What a person must know of it, where it is no bug."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return ResourceError(
            f"{directory}: out of memory ({error}); lower experience.capacity, experience.num_envs or the network"
        )
    if isinstance(error, KeyboardInterrupt) and signals.received is not None:
        return signals.error("the last checkpoint stands; the same command continues")
    return error


def record_failure(directory: Path, folders: Mapping[int, Path], error: BaseException) -> None:
    """status.json says how a run ended, also where the reason is a bug; a full disk must not hide that reason.

    Seeds that finished before another's failure stay finished.
    """
    code = error.code if isinstance(error, RlexpError) else 1
    state = INTERRUPTED if isinstance(error, (Interrupted, KeyboardInterrupt)) else FAILED
    message = redact(" ".join(str(error).split())) or type(error).__name__
    with contextlib.suppress(RlexpError):
        if isinstance(error, EnvironmentFailure) and error.episode is not None:
            write_json(directory / "failed_episode.json", {"error": message, **error.episode})
        for folder in dict.fromkeys([directory, *folders.values()]):
            if read_status(folder).get("state") != FINISHED:
                write_json(folder / "status.json", {"state": state, "exit_code": code, "error": message})
