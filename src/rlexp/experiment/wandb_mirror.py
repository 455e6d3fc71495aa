"""The run's side of its W&B mirror: start the process that follows the rows, hear from it, leave it in time."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlexp.errors import StorageError
from rlexp.experiment.identity import outputs_of
from rlexp.storage import read_json

PATIENCE = 15.0  # seconds that a run which has ended waits for its mirror


def new_id() -> str:
    """A W&B run id."""
    return secrets.token_hex(4)


class Mirror:
    """At most one process beside a run. No method raises: a run never depends on W&B.

    Args:
        directories: the folders of the run's seeds.
        settings: `logger.wandb` of the configuration; None: no mirror.
        say: is given a line for a person.
    """

    def __init__(
        self, directories: Sequence[Path], settings: Mapping[str, Any] | None, say: Callable[[str], None]
    ) -> None:
        self._directories = list(directories)
        self._settings = None if os.environ.get("WANDB_MODE") == "disabled" else settings
        self._say = say
        self._started = False
        self._said = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to mirror; to be called when the rows that a resumed run makes anew have been cut, or it has failed.

        A second call does nothing.
        """
        if self._settings is None or self._started:
            return
        self._started = True
        command = [sys.executable, "-P", "-m", "rlexp.experiment.wandb_process", *map(str, self._directories)]
        command += ["--parent", str(os.getpid()), "--mode", self._settings["mode"]]
        command += ["--project", self._settings["project"]]
        if self._settings["entity"] is not None:
            command += ["--entity", self._settings["entity"]]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # nothing is written: its end tells the process that the run has ended
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the run
            )
        except OSError as error:
            self._say(f"W&B: not mirrored: {error}; {self._remedy()}")

    def row(self, row: Mapping[str, Any]) -> None:
        """A listener of rows: once the process is at work, say where."""
        if self._process is not None and not self._said:
            self._report()

    def wait(self) -> None:
        """After the status is written: wait for the last rows, and leave a process that takes longer to itself."""
        if self._process is None:
            return
        try:
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._say(f"W&B: process {self._process.pid} goes on without this one; {self._remedy()} if it fails")
        except KeyboardInterrupt:  # whoever does not want to wait for W&B has the run's own result all the same
            pass
        else:
            if not self._said:
                self._report()
            for differs in filter(None, (self._heard(each).get("differs") for each in self._directories)):
                self._say(f"W&B: {differs}: it went on where it was no longer exact; rows.jsonl is right")
            if self._process.returncode != 0:
                errors = [error for each in self._directories if (error := self._heard(each).get("error"))]
                self._say(f"W&B: not mirrored: {'; '.join(errors) or 'its process died'}; {self._remedy()}")

    def _heard(self, directory: Path) -> dict[str, Any]:
        """What this run's own process has written of a folder, not that of an earlier one."""
        assert self._process is not None
        path = directory / "wandb.json"
        try:
            heard = read_json(path) if path.exists() else {}
        except StorageError:
            return {}
        return heard if isinstance(heard, dict) and heard.get("pid") == self._process.pid else {}

    def _report(self) -> None:
        heard = [self._heard(each) for each in self._directories]
        if not all("mode" in each for each in heard):
            return
        self._said = True
        urls = [each["url"] for each in heard if each["mode"] == "online"]
        if urls:
            self._say(f"W&B: {' '.join(urls)}")
        reasons = [each["reason"] for each in heard if each["mode"] != "online"]
        if not reasons:
            return
        why = f" ({reasons[0]})" if reasons[0] else ""
        folder = outputs_of(self._directories[0]) / "wandb"
        self._say(f"W&B: offline{why}; `wandb leet run {folder}` shows it, `rlexp-sync --mode online RUN` sends it")

    def _remedy(self) -> str:
        return f"rlexp-sync {' '.join(map(str, self._directories))} makes it anew"
