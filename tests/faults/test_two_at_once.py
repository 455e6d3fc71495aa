"""Several processes that want the same run."""

import dataclasses
import os
import select
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rlexp import storage
from rlexp.cli.common import guarded
from rlexp.experiment.check import Checked
from rlexp.experiment.display import Display
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.run import run
from rlexp.storage.locks import is_locked, locked
from tests.experiment.support import LONGEST, TINY
from tests.faults.ends import ENDLESS
from tests.faults.lab import Launched, rows_below, run_below, wait_until

NOT_INJECTED = {
    "F13": "a second host: the lock is the kernel's (flock), which network file systems hand on or not; none is here",
}
ROUNDS_AT_ONCE = 10


@pytest.fixture(scope="module")
def job() -> Checked:
    (checked,) = checked_jobs([*TINY, "algorithm=value_iteration", "env=frozen_lake"], multirun=False)
    return checked


class Contender(NamedTuple):
    """A process that wants a run: what it says comes by `said`, and it begins when `go` is closed."""

    pid: int
    said: int


def contend(job: Checked, outputs: Path, go: tuple[int, int]) -> Contender:
    """A fork of this process, which has torch. Whoever gets the run says `mine` and holds it until it is killed."""
    said, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return Contender(pid, said)

    def hold(operation: str, path: Path) -> None:
        if operation not in ("mkdir", "fsync"):  # folders are made, and synced, before the run is locked
            os.write(tell, f"mine {time.monotonic()}".encode())
            signal.pause()

    def wanted() -> int:
        storage.before_operation = hold
        config = {**job.config, "outputs": str(outputs)}
        run(dataclasses.replace(job, config=config), Display("none"))
        return 0

    code = 1
    try:
        signal.alarm(LONGEST)
        os.close(go[1])
        sys.stderr = open(tell, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.read(go[0], 1)
        began = time.monotonic()
        code = guarded(wanted)
        os.write(tell, f"{code} {time.monotonic() - began}".encode())
    finally:
        os._exit(code)


def heard(contender: Contender) -> str:
    """Its line and its exit code, or that it has the run."""
    text = ""
    while select.select([contender.said], [], [], 60)[0] and (piece := os.read(contender.said, 4096)):
        text += piece.decode()
        if text.startswith("mine"):
            break
    return text


@pytest.fixture
def all_gone() -> Iterator[list[Contender]]:
    contenders: list[Contender] = []
    yield contenders
    for each in contenders:
        os.kill(each.pid, signal.SIGKILL)
        os.waitpid(each.pid, 0)
        os.close(each.said)


@pytest.mark.parametrize(("how_many", "rounds"), [(2, 100), (8, 50)])
def test_f13_exactly_one_of_many_starts_gets_the_run(
    how_many: int, rounds: int, job: Checked, tmp_path: Path, all_gone: list[Contender]
) -> None:
    """Two, and eight, processes begin the same run at once, 150 times: one runs, the others end with 5 and name it."""
    slowest: list[float] = []
    for first in range(0, rounds, ROUNDS_AT_ONCE):
        go = os.pipe()
        folders = [tmp_path / f"{first + k}" for k in range(ROUNDS_AT_ONCE)]
        teams = [[contend(job, folder, go) for _ in range(how_many)] for folder in folders]
        all_gone += [each for team in teams for each in team]
        os.close(go[0])
        os.close(go[1])
        for team in teams:
            said = {each.pid: heard(each) for each in team}
            (owner,) = (pid for pid, text in said.items() if text.startswith("mine"))
            for text in (text for pid, text in said.items() if pid != owner):
                assert f"is in use by process {owner} on {os.uname().nodename}; wait for it" in text
                line, ending = text.splitlines()
                assert line.startswith("rlexp: error[5]: ")
                assert ending.split()[0] == "5"
                slowest.append(float(ending.split()[1]))
        while all_gone:
            each = all_gone.pop()
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
            os.close(each.said)
        assert not any(is_locked(path) for folder in folders for path in folder.glob("*/*/s0"))
    assert len(slowest) == rounds * (how_many - 1)
    assert statistics.median(slowest) < 1  # some of so many wait for a processor


def test_f13_a_second_start_is_refused_in_a_second_and_a_killed_owner_is_succeeded(tmp_path: Path) -> None:
    """A second start is refused within 1 s of looking; the run of a killed owner is taken over at once."""
    outputs = tmp_path / "outputs"
    owner = Launched(tmp_path / "owner", *ENDLESS, f"outputs={outputs}")
    wait_until(lambda: rows_below(outputs) > 0, what="the first row")
    folder = run_below(outputs)
    assert folder is not None
    began = time.monotonic()
    with pytest.raises(storage.StorageError, match=f"in use by process {owner.pid} on "), locked(folder):
        pass
    assert time.monotonic() - began < 1
    second = Launched(tmp_path / "second", *ENDLESS, f"outputs={outputs}")
    assert second.end() == 5
    assert f"process {owner.pid} on {os.uname().nodename}" in second.errors()[-1]
    owner.send(signal.SIGKILL)
    assert owner.end() == -signal.SIGKILL
    third = Launched(tmp_path / "third", *ENDLESS, f"outputs={outputs}")
    wait_until(lambda: (folder / "lock").read_text().startswith(f"process {third.pid} on "), what="the next owner")
    third.send(signal.SIGTERM)
    assert third.end() == 75
