"""Clocks that jump while a run goes, and between one start and the next."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_storm import difference, remains

from rlexp import storage
from rlexp.storage.checkpoints import reap_unfinished
from tests.experiment.support import Forked
from tests.faults.lab import ROOT, SMALL, Launched, rows_below, run_below, wait_until

NAMESPACE = ("unshare", "-rT", "--monotonic")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "100", "true"], capture_output=True).returncode != 0,
    reason="needs unshare and time namespaces",
)
LINE = [*SMALL, "algorithm.num_epochs=1", "algorithm.num_minibatches=1", "total_env_steps=4000", "logger.interval=200"]
LINE += ["checkpoint.interval=500", "evaluation.interval=2000"]
TALKATIVE = "import rlexp.experiment.display as d; d.LINE_EVERY = 0.0; from rlexp.cli.main import main; main()"
COMMAND = (sys.executable, "-c", TALKATIVE)
"""`rlexp`, that says at every turn how much time is left."""

JUMPING = """
import itertools
import time

now, calls = time.time, itertools.count()


def jumping():
    \"\"\"An hour back, a day ahead, and right again, by turns.\"\"\"
    return now() + (0, -3600, 86400)[next(calls) // 3 % 3]


time.time = jumping
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert Forked(outputs / "said", *LINE, f"outputs={outputs}").wait() == 0
    return outputs


def time_left_makes_sense(lines: list[str]) -> bool:
    """Not below 0, and not an hour for a run of seconds."""
    left = [match for line in lines for match in re.findall(r"(\S+) left", line)]
    return bool(left) and all(re.fullmatch(r"\d{1,2}:\d\d", each) for each in left)


def test_f12_the_wall_clock_jumps_all_the_time(undisturbed: Path, tmp_path: Path) -> None:
    """time.time() jumps an hour back and a day ahead all the time: the same run, and the time left makes sense."""
    (tmp_path / "jumping").mkdir()
    (tmp_path / "jumping" / "sitecustomize.py").write_text(JUMPING)
    environment = {"PYTHONPATH": f"{tmp_path / 'jumping'}:{ROOT / 'src'}:{ROOT}"}
    outputs = tmp_path / "outputs"
    run = Launched(
        tmp_path / "said", *LINE, "display=plain", f"outputs={outputs}", environment=environment, command=COMMAND
    )
    assert run.end() == 0
    assert difference(remains(LINE, undisturbed), remains(LINE, outputs)) is None
    assert time_left_makes_sense(run.errors())


@needs_namespaces
@pytest.mark.parametrize("seconds", [(0, 86_400), (86_400, 0)], ids=["a day ahead", "a day back"])
def test_f12_another_monotonic_clock_at_the_next_start(
    seconds: tuple[int, int], undisturbed: Path, tmp_path: Path
) -> None:
    """Killed, and continued where the monotonic clock is a day ahead or back and files are dated otherwise: equal."""
    outputs = tmp_path / "outputs"
    words = [*LINE, "display=plain", f"outputs={outputs}"]
    first = Launched(tmp_path / "first", *words, wrapped=[*NAMESPACE, str(seconds[0])])
    wait_until(lambda: rows_below(outputs) > 6, what="some rows")
    first.send(9, to_group=True)
    assert first.end() == -9
    folder = run_below(outputs)
    assert folder is not None
    for age, path in enumerate(sorted((folder / "checkpoints").glob("[0-9]*"))):
        os.utime(path, (time.time() - 10_000 * age,) * 2)  # the newest is dated as the oldest
    newest = int(max((folder / "checkpoints").glob("[0-9]*")).name)
    second = Launched(tmp_path / "second", *words, wrapped=[*NAMESPACE, str(seconds[1])], command=COMMAND)
    assert second.end() == 0
    assert any(f"from env_steps={newest}" in line for line in second.errors())
    assert time_left_makes_sense(second.errors())
    assert difference(remains(LINE, undisturbed), remains(LINE, outputs)) is None


def test_f12_a_file_that_is_written_outlives_a_jump_of_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock jumps a day while a file is written: another process that clears up does not take it for a leftover."""
    path = tmp_path / "status.json"
    with storage.written_aside(path) as file:
        file.write(b"{}")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 86_400)
        pid = os.fork()
        if pid == 0:
            try:
                reap_unfinished(tmp_path)
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert path.read_text() == "{}"
