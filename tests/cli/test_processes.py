"""Processes side by side, with commands that take no time: their number, output, signals and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlexp.cli.processes import last_words, run_side_by_side
from tests.experiment.wandb_runs import wait_for

LONG = "trap 'exit 75' TERM; trap 'echo hurried' INT; echo on; for i in $(seq 1000); do sleep 0.02; done; exit 1"


def side_by_side(folder: Path, scripts: list[str], at_once: int = 2, begun=lambda i: None):
    """Returns the signal, the statuses by command, and the most that ran at once."""
    statuses: dict[int, int] = {}
    running: set[int] = set()
    most = 0

    def begin(i: int) -> None:
        nonlocal most
        running.add(i)
        most = max(most, len(running))
        begun(i)

    def end(i: int, status: int) -> None:
        running.remove(i)
        statuses[i] = status

    logs = [folder / f"{i}.log" for i in range(len(scripts))]
    received = run_side_by_side([["sh", "-c", script] for script in scripts], logs, at_once, begin, end)
    assert not running
    return received, statuses, most


def test_each_ends_in_its_own_way_and_no_more_than_asked_for_run_at_once(tmp_path: Path) -> None:
    scripts = ["echo $OMP_NUM_THREADS out", "echo words >&2; exit 3", "kill -9 $$", "kill -11 $$", "sleep 0.1"]
    received, statuses, most = side_by_side(tmp_path, scripts)
    assert received is None
    assert statuses == {0: 0, 1: 3, 2: -signal.SIGKILL, 3: -signal.SIGSEGV, 4: 0}
    assert most == 2
    assert (tmp_path / "0.log").read_text() == "1 out\n"
    assert last_words(tmp_path / "1.log") == "words"


def wait_for_traps(folder: Path, count: int) -> None:
    wait_for(lambda: all((folder / f"{i}.log").read_text().startswith("on") for i in range(count)))


def test_a_signal_reaches_all_that_run_and_nothing_new_begins(tmp_path: Path) -> None:
    def stop(i: int) -> None:
        if i == 1:
            wait_for_traps(tmp_path, 2)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    received, statuses, _ = side_by_side(tmp_path, [LONG] * 4, begun=stop)
    assert received == signal.SIGTERM
    assert statuses == {0: 75, 1: 75}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_third_signal_kills(tmp_path: Path) -> None:
    def stop(i: int) -> None:
        wait_for_traps(tmp_path, 1)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    received, statuses, _ = side_by_side(tmp_path, [LONG], begun=stop)
    assert received == signal.SIGINT
    assert statuses == {0: -signal.SIGKILL}


def test_an_error_of_ours_leaves_no_process_behind(tmp_path: Path) -> None:
    def fail(i: int) -> None:
        if i == 1:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        side_by_side(tmp_path, ["echo $$; cat", "echo $$; cat"], begun=fail)
    for i in range(2):
        said = (tmp_path / f"{i}.log").read_text()
        assert said == "" or not Path(f"/proc/{said.strip()}").exists()


def test_the_input_of_processes_ends_with_a_killed_parent(tmp_path: Path) -> None:
    parent = (
        "import sys; from pathlib import Path; from rlexp.cli.processes import run_side_by_side as run\n"
        "logs = [Path(sys.argv[1]) / '0.log']\n"
        "run([['sh', '-c', 'cat; echo ended']], logs, 1, lambda i: print('begun', flush=True), print)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: (tmp_path / "0.log").read_text() == "ended\n")


def test_the_last_words_are_rlexps_own_or_the_end_of_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    assert last_words(log) == ""
    log.write_text("Traceback (most recent call last):\n  File x\nValueError: no\n\n")
    assert last_words(log) == "ValueError: no"
    log.write_text("12 steps\nrlexp: error[3]: Env-v0: broke; step 3\na warning at the end\n")
    assert last_words(log) == "Env-v0: broke; step 3"
