"""Checkpoints of a run: the tree of everything that holds state; at each instant a good one is on the disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from rlexp.errors import ConfigError, RlexpError, StorageError
from rlexp.experiment.intervals import Every
from rlexp.experiment.members import Failures
from rlexp.storage import remove
from rlexp.storage.checkpoints import is_newer, load_tree, save_tree
from rlexp.types import Progress, Seeds, Update


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def steps_of(checkpoint: Path) -> int:
    """The environment steps that a checkpoint's folder is called by; their names have no fixed length beyond 10^15."""
    return int(checkpoint.name)


class Checkpointer:
    """Saves `parts` every `interval` environment steps and keeps the last `keep`.

    The one before is removed only after the new one was read back and its digests matched. One save that fails is said
    and the run goes on with what it has; the second in a row ends it.
    """

    def __init__(
        self,
        directory: Path,
        parts: Mapping[str, Stateful],
        interval: int,
        keep: int,
        failures: Failures,
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._failures = failures
        self._parts = dict(parts)
        self._keep = keep
        self._every = Every(interval)
        self._saved_at = -1
        self._failed = False
        self._say = say

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Any) -> str | None:
        if self._every.due(progress.env_steps):
            try:
                self.save(progress, state)
            except StorageError as error:
                if self._failed:
                    raise
                self._failed = True
                self._say(
                    f"not saved at env_steps={progress.env_steps}: {error}; the run goes on, a second time ends it"
                )
        return None

    def save(self, progress: Progress, state: Seeds) -> None:
        """Nothing happens where this turn was saved already.

        A seed whose parameters are not finite is frozen first; raises NonFiniteError where no other is left, and
        StorageError where it could not be saved: what was saved before is then untouched.
        """
        if self._saved_at == progress.env_steps:
            return
        for index, finite in enumerate(state.finite()):
            if not finite and not state.frozen[index]:
                message = (
                    f"a parameter became NaN or infinite by env_steps={progress.env_steps}; lower "
                    "optimizer.learning_rate or set optimizer.max_grad_norm; the last finite checkpoint is kept"
                )
                self._failures.add(index, message, state)
        tree = {name: part.state_dict() for name, part in self._parts.items()}
        path = self._directory / f"{progress.env_steps:015d}"
        save_tree(path, tree)
        try:
            load_tree(path)
        except StorageError:
            remove(path)
            raise
        self._saved_at, self._failed = progress.env_steps, False
        for old in self.found()[: -self._keep]:
            remove(old)

    def resume(self, env_steps: int) -> None:
        self._every.resume(env_steps)
        self._saved_at = env_steps

    def found(self) -> list[Path]:
        """Checkpoints from the oldest to the newest, by their environment steps."""
        return sorted((path for path in self._directory.glob("[0-9]*") if path.is_dir()), key=steps_of)

    def load_newest(self) -> tuple[Path | None, list[str]]:
        """Load the newest good checkpoint into the parts; damaged ones are passed over and named.

        Returns the path, None where there is none, and one line for each damaged one. Raises StorageError where there
        were checkpoints and none is good, or a later version of rlexp wrote one; ConfigError, before anything is
        loaded, where it is of another run.
        """
        damaged: list[str] = []
        for path in reversed(self.found()):
            try:
                tree = load_tree(path)
            except StorageError as error:
                if is_newer(path):  # not damaged: the run went further than this version can follow
                    raise StorageError(f"{error}; continue with the version that wrote it") from error
                damaged.append(str(error))
                continue
            self._load(path, tree)
            return path, damaged
        if damaged:
            raise StorageError(
                f"no good checkpoint is left in {self._directory}: {damaged[0]}; restart=true begins anew"
            )
        return None, []

    def _load(self, path: Path, tree: Mapping[str, Any]) -> None:
        try:
            for name, part in self._parts.items():
                if name in tree:  # evaluation may be switched on for a run that was begun without
                    part.load_state_dict(tree[name])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}; move it away, or restart=true begins anew") from error
        except (RlexpError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # it is whole, and yet not what this version saves: altered, or of another one
            said = f"{type(error).__name__}: {error}"
            raise StorageError(f"{path}: does not fit this run ({said}); restart=true begins anew") from error
