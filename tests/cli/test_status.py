"""How runs stand, from folders made by hand: what is said of them, and that nobody is hindered."""

import fcntl
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rlexp.cli.status import command
from rlexp.errors import ConfigError, StorageError
from rlexp.experiment import standing
from rlexp.experiment.pace import Pace, clock, seconds_left
from rlexp.experiment.plans import Planned, read_plan, write_plan
from rlexp.experiment.standing import standing_of
from rlexp.experiment.status import read_status, record_killed
from rlexp.storage import write_json
from rlexp.storage.locks import is_locked, locked
from rlexp.storage.rows import RowLog


def make_run(folder: Path, status: dict[str, Any] | None, env_steps: int = 0, wall_s: float = 60.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("total_env_steps: 1000\n")
    write_json(folder / "run.json", {"name": f"gamma=0.9 {folder.name}"})
    write_json(folder / "sessions.json", {"cost": {"wall_s": wall_s}})
    with locked(folder):
        if status is not None:
            write_json(folder / "status.json", status)
        log = RowLog(folder / "rows.jsonl")
        for step in range(100, env_steps + 1, 100):
            log.append({"kind": "train", "env_steps": step, "text": "x" * 1000})
        log.close()
    return folder


FINISHED = {"state": "finished", "exit_code": 0, "results": {"final": {"return": 12.5}, "best": {"return": 13.0}}}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A sweep of six jobs, of which the last has not begun; and a run that no sweep made."""
    home = tmp_path / "outputs" / "ppo_x" / "0123abcd"
    folders = [home / f"s{seed}" for seed in (0, 1, 2, 3, 4, 10)]
    make_run(folders[0], FINISHED, 1000)
    make_run(folders[1], {"state": "running"}, 300)
    make_run(folders[2], {"state": "failed", "exit_code": 3, "error": "the pole broke"}, 400)
    make_run(folders[3], {"state": "running"}, 200)
    make_run(folders[4], {"state": "interrupted", "exit_code": 75, "error": "saved"}, 500)
    make_run(tmp_path / "outputs" / "dqn_y" / "89abcdef" / "s7-2", FINISHED, 900)
    jobs = [Planned(n, f"job s{n}", folder, (f"seed={n}",), 1000) for n, folder in enumerate(folders, start=1)]
    write_plan(tmp_path / "outputs", ["-m", "seed=0,1"], jobs)
    return tmp_path / "outputs"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command(arguments) == 0
    return capsys.readouterr().out


def test_every_state_is_shown_with_return_and_time(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(outputs / "ppo_x" / "0123abcd" / "s1"):
        lines = shown(capsys, str(outputs)).splitlines()
    table = {line.split()[0]: line.split() for line in lines[1:8]}
    assert list(table) == ["dqn_y/89abcdef/s7-2", *(f"ppo_x/0123abcd/s{seed}" for seed in (0, 1, 2, 3, 4, 10))]
    states = [words[1] for words in table.values()]
    assert states == ["finished", "finished", "running", "failed", "killed", "interrupted", "waiting"]
    assert table["ppo_x/0123abcd/s0"][2:] == ["1000", "100%", "12.5", "1:00", "job", "s1"]
    assert table["ppo_x/0123abcd/s1"][2:] == ["300", "30%", "1:00", "job", "s2"]
    assert table["ppo_x/0123abcd/s2"][-3:] == ["the", "pole", "broke"]
    assert table["dqn_y/89abcdef/s7-2"][2:] == ["900", "90%", "12.5", "1:00", "gamma=0.9", "s7-2"]
    assert lines[8] == "7 runs: 2 finished, 1 running, 1 failed, 1 killed, 1 interrupted, 1 waiting"
    assert re.fullmatch(r"sweep \w{8} is not at work; `rlexp -m seed=0,1` continues", lines[9])


@pytest.mark.parametrize(
    ("below", "count"), [("ppo_x", 6), ("ppo_x/0123abcd", 6), ("ppo_x/0123abcd/s2", 1), ("dqn_y", 1)]
)
def test_any_folder_may_be_asked(outputs: Path, below: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [json.loads(line) for line in shown(capsys, str(outputs / below), "--json").splitlines()]
    assert len(runs) == count
    assert all(run["folder"].startswith(str(outputs / below)) for run in runs)


def test_a_sweeps_own_folder_shows_its_jobs_and_that_it_is_at_work(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = (outputs / ".multirun").iterdir()
    with locked(folder):
        lines = shown(capsys, str(folder)).splitlines()
    states = [line.split()[1] for line in lines[1:7]]
    assert states == ["finished", "killed", "failed", "killed", "interrupted", "waiting"]
    assert lines[-1] == f"sweep {folder.name} is at work"


def test_json_has_everything(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = [json.loads(line) for line in shown(capsys, str(outputs / "ppo_x/0123abcd/s2"), "--json").splitlines()]
    assert run == {
        "folder": str(outputs / "ppo_x/0123abcd/s2"), "name": "job s3", "state": "failed", "env_steps": 400,
        "total_env_steps": 1000, "final_return": None, "wall_s": 60.0, "exit_code": 3, "error": "the pole broke",
    }  # fmt: skip


def test_what_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        command([str(tmp_path)])
    with pytest.raises(ConfigError, match="there is no such folder"):
        command([str(tmp_path / "nothing")])
    with pytest.raises(ConfigError, match="unrecognized arguments: --what; see rlexp-status --help"):
        command(["--what"])


def test_a_run_that_ends_while_it_is_read_is_not_taken_for_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "s0", {"state": "running"})

    def ends_now(directory: Path) -> bool:
        write_json(directory / "status.json", FINISHED)
        return False

    monkeypatch.setattr(standing, "is_locked", ends_now)
    assert standing_of(folder).state == "finished"


def test_damaged_files_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "s0", FINISHED, 200)
    for name in ("run.json", "sessions.json", "config.yaml"):
        (folder / name).write_text("{")
    with open(folder / "rows.jsonl", "ab") as rows:
        rows.write(b'{"env_steps":300,"crc":1')
    stand = standing_of(folder)
    assert (stand.state, stand.env_steps, stand.total_env_steps, stand.wall_s) == ("finished", 200, None, None)
    (folder / "status.json").write_text("[]")
    assert standing_of(folder).state == "killed"


def test_reading_makes_nothing_and_hinders_nobody(outputs: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in outputs.rglob("*"))
    run = outputs / "ppo_x" / "0123abcd" / "s4"
    never_held = outputs / "dqn_y"
    assert not is_locked(never_held)
    with open(run / "lock") as another_reader:
        fcntl.flock(another_reader, fcntl.LOCK_SH)
        assert not is_locked(run)
    command([str(outputs)])
    assert sorted((path, path.stat().st_mtime_ns) for path in outputs.rglob("*")) == before
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            is_locked(run)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(100):
            with locked(run):
                assert is_locked(run)
        with locked(run), pytest.raises(StorageError, match="is in use by process"), locked(run):
            pass
    finally:
        done.set()
        looking.join()


def test_nobody_waits_for_torch() -> None:
    code = "import rlexp.cli.status, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_killed_run_is_said_to_have_failed_unless_it_goes_on(outputs: Path) -> None:
    run = outputs / "ppo_x" / "0123abcd" / "s1"
    with locked(run):
        record_killed(run, 137, "killed by SIGKILL")
        assert read_status(run) == {"state": "running"}
    record_killed(run, 137, "killed by SIGKILL")
    assert read_status(run) == {"state": "failed", "exit_code": 137, "error": "killed by SIGKILL"}
    finished = outputs / "ppo_x" / "0123abcd" / "s0"
    record_killed(finished, 137, "killed by SIGKILL")
    assert read_status(finished)["state"] == "finished"


# ------------------------------------------------------------------------------------------------------- plans and time


def test_the_same_runs_are_the_same_sweep_wherever_they_were_moved(outputs: Path, tmp_path: Path) -> None:
    jobs = [Planned(n, "a", outputs / "x" / f"s{n}", (f"seed={n}",), 5) for n in (1, 2)]
    first = write_plan(outputs, ["-m"], jobs)
    assert write_plan(outputs, ["-m", "display=none"], jobs).folder == first.folder
    assert write_plan(outputs, ["-m"], jobs[:1]).folder != first.folder
    moved = outputs.rename(tmp_path / "moved")
    plan = read_plan(moved / ".multirun" / first.folder.name)
    assert plan is not None
    assert plan.command == ("-m", "display=none")
    assert [job.folder for job in plan.jobs] == [moved / "x" / "s1", moved / "x" / "s2"]


def test_time_is_judged_by_runs_of_the_same_experiment_then_of_the_same_kind_then_by_this_sweep(tmp_path: Path) -> None:
    kind = tmp_path / "ppo_x"
    make_run(kind / "00000001" / "s0", FINISHED, 1000, wall_s=10.0)
    make_run(kind / "00000002" / "s0", FINISHED, 1000, wall_s=30.0)
    make_run(kind / "00000002" / "s1", {"state": "failed"}, 1000, wall_s=999.0)
    pace = Pace(launch=2.0)
    assert pace.seconds(kind / "00000002", 500) is None
    assert pace.look_back([kind / "00000002"]) == 1
    assert pace.seconds(kind / "00000002", 500) == 15.0 + 2.0
    pace = Pace(launch=2.0)
    assert pace.look_back([kind / "00000003", tmp_path / "dqn_x" / "00000004"]) == 2
    assert pace.seconds(kind / "00000003", 500) == 10.0 + 2.0
    assert pace.seconds(tmp_path / "dqn_x" / "00000004", 500) == 10.0 + 2.0
    pace.note(kind / "00000003", 8.0, 1000)
    assert pace.seconds(kind / "00000003", 500) == 4.0
    assert pace.seconds(tmp_path / "dqn_x" / "00000004", 500) == 4.0


def test_time_left_is_shared_among_those_at_once_and_never_less_than_the_longest() -> None:
    assert seconds_left([10.0, 10.0], [4.0], at_once=1) == 24.0
    assert seconds_left([10.0, 10.0], [4.0], at_once=2) == 12.0
    assert seconds_left([30.0], [4.0], at_once=2) == 30.0
    assert seconds_left([10.0], [], at_once=8) == 10.0
    assert seconds_left([], [], at_once=8) == 0.0
    assert [clock(s) for s in (0.4, 61.0, 3723.0)] == ["0:00", "1:01", "1:02:03"]
