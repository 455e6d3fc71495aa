"""W&B that is not there, refuses, hangs, dies or is killed: what it does to a run, and what comes of the rows."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlexp.experiment.rows import Rows
from rlexp.experiment.status import read_status
from rlexp.storage import read_json
from rlexp.storage.rows import read_rows
from tests.experiment.support import Forked
from tests.experiment.wandb_runs import inspect, no_account, wandb_folders
from tests.faults.lab import Launched, rows_below, run_below, under_load, wait_until
from tests.faults.wandb_faults import KEY, MIRRORED, Failing, account, kill_mirrors, mirrors_of, serving

__all__ = ["no_account"]  # a fixture for every test here

ELSEWHERE = {
    "F35": [
        "tests/experiment/test_wandb.py::test_failed_run_is_failed_and_what_is_not_finite_stays_so",
        "tests/experiment/test_wandb.py::test_rows_that_are_not_finite_are_logged_as_numbers",
    ],
    "F32": ["tests/experiment/test_wandb.py::test_killed_run_is_failed_and_its_continuation_is_one_whole_run"],
}

PATIENCE = 15.0  # seconds that a run which has ended waits for its mirror, as docs/runs.md says


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [without_times(row) for row in read_rows(folder / "rows.jsonl")]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


class Seen(NamedTuple):
    """A run with a W&B that fails: how it began and ended, all in seconds of the monotonic clock."""

    outputs: Path
    code: int
    errors: list[str]
    folder_at: float
    first_row_at: float
    finished_at: float  # as status.json says
    ended_at: float

    @property
    def folder(self) -> Path:
        found = run_below(self.outputs)
        assert found is not None
        return found

    @property
    def said_of_wandb(self) -> list[str]:
        return [line for line in self.errors if line.startswith("W&B")]


def watched(runs: dict[str, tuple[Path, Launched]]) -> dict[str, Seen]:
    """Runs, by name with the outputs of each, up to their ends."""
    at: dict[str, dict[str, float]] = {name: {} for name in runs}

    def look() -> bool:
        for name, (outputs, launched) in runs.items():
            folder, now = run_below(outputs), time.monotonic()
            status = read_status(folder) if folder else {}
            happened = {
                "folder_at": folder is not None,
                "first_row_at": rows_below(outputs) > 0,
                "finished_at": status.get("state") == "finished",
                "ended_at": not launched.running(),
            }
            at[name] |= {what: now for what, true in happened.items() if true and what not in at[name]}
        return all("ended_at" in times for times in at.values())

    wait_until(look, 150, "the end of all runs")
    return {
        name: Seen(outputs, launched.end(), launched.errors(), **at[name]) for name, (outputs, launched) in runs.items()
    }


def launch(folder: Path, *words: str, url: str | None, init_timeout: float | None = None) -> tuple[Path, Launched]:
    variables = account(folder / "home", url, init_timeout=init_timeout)
    line = [*MIRRORED, *words, f"outputs={folder / 'outputs'}"]
    return folder / "outputs", Launched(folder / "said", *line, environment=variables)


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Runs with servers that fail from the start, side by side, for they wait most of the time; by one test process."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with open(shared / "from_the_start.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "from_the_start.json").exists():
            found = from_the_start(shared / "from_the_start")
            plain = {name: each._replace(outputs=str(each.outputs)) for name, each in found.items()}
            (shared / "from_the_start.json").write_text(json.dumps(plain))
    plain = json.loads((shared / "from_the_start.json").read_text())
    return {name: Seen(Path(outputs), *rest) for name, (outputs, *rest) in plain.items()}


def from_the_start(folder: Path) -> dict[str, Seen]:
    with contextlib.ExitStack() as held:
        patch = held.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        broken = held.enter_context(serving(Failing(status=500)))
        unwilling = held.enter_context(serving(Failing(status=401)))
        silent = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            refused = f"http://127.0.0.1:{closed.getsockname()[1]}"
        never = f"http://127.0.0.1:{silent.getsockname()[1]}"
        runs = {
            "local": launch(folder / "local", "logger=local", "logger.interval=40", url=None),
            "500": launch(folder / "500", url=broken.url, init_timeout=1.0),
            "refused": launch(folder / "refused", url=refused, init_timeout=1.0),
            "silent": launch(folder / "silent", url=never, init_timeout=1.0),
            "patient": launch(folder / "patient", url=never),  # with the minute that it has
            "401": launch(folder / "401", url=unwilling.url),
            "no key": launch(folder / "no_key", url=None),
        }
        found = watched(runs)
        for outputs, _ in runs.values():
            kill_mirrors(outputs)
        return found


@pytest.mark.parametrize("server", ["500", "refused", "silent"])
def test_f28_no_server_at_the_start(server: str, seen: dict[str, Seen]) -> None:
    """Where the W&B server answers 500, refuses or never answers, training starts at once, the rows are those of a run
    without W&B, and the copy is made offline with one line that says why."""
    run = seen[server]
    assert run.code == 0
    assert run.first_row_at - run.folder_at < under_load(5.0)
    assert run.ended_at - run.finished_at < PATIENCE + under_load(3.0)
    assert untimed(run.folder) == untimed(seen["local"].folder) != []
    (line,) = run.said_of_wandb
    assert line.startswith("W&B: offline (")
    assert read_json(run.folder / "wandb.json")["mode"] == "offline"
    (copy,) = wandb_folders(run.outputs)
    assert inspect(copy)["rows"] == read_rows(run.folder / "rows.jsonl")


def test_f28_a_server_that_never_answers_and_a_patient_mirror(seen: dict[str, Seen]) -> None:
    """A run whose mirror still waits for a server's first answer ends fifteen seconds after its work, with one line."""
    run = seen["patient"]
    assert run.code == 0
    assert run.first_row_at - run.folder_at < under_load(5.0)
    assert run.ended_at - run.finished_at < PATIENCE + under_load(3.0)
    assert untimed(run.folder) == untimed(seen["local"].folder)
    (line,) = run.said_of_wandb
    assert "goes on without this one; rlexp-sync" in line


def test_f30_a_wrong_key(seen: dict[str, Seen]) -> None:
    """A key that the server does not take costs one line; the run finishes and its copy is made offline."""
    run = seen["401"]
    assert run.code == 0
    (line,) = run.said_of_wandb
    assert line.startswith("W&B: offline (")
    assert "no message" not in line
    assert KEY not in "\n".join(run.errors)
    assert untimed(run.folder) == untimed(seen["local"].folder)


def test_f31_no_key_and_no_terminal(seen: dict[str, Seen]) -> None:
    """Without a key and without a terminal nothing asks for one: the run finishes and its copy is made offline."""
    run = seen["no key"]
    assert run.code == 0
    (line,) = run.said_of_wandb
    assert line.startswith("W&B: offline (No API key configured")
    assert untimed(run.folder) == untimed(seen["local"].folder)


def test_f31_no_key_in_a_terminal(seen: dict[str, Seen], tmp_path: Path) -> None:
    """Also in a terminal nothing asks for a key: `rlexp-sync` makes the copy offline and ends."""
    code = "from rlexp.cli.sync import main; main()"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(account(tmp_path / "home", None))
        os.execv(sys.executable, [sys.executable, "-c", code, str(seen["local"].folder)])
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    else:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said.decode()
    assert b"offline in" in said
    assert b"Enter" not in said


def write_slowly() -> None:
    write = Rows.write_training_rows

    def slowly(*given: Any) -> None:
        time.sleep(0.1)
        write(*given)

    Rows.write_training_rows = slowly  # type: ignore[method-assign]


def test_f29_f33_the_server_dies_and_the_run_is_killed_ahead_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies in mid-run does not hold up the run; one that is then killed has rows on the server beyond its
    checkpoint, makes them anew when it is continued, and the server, back again, has each row once."""
    outputs = tmp_path / "outputs"
    line = [*MIRRORED, "logger.wandb.mode=online", "total_env_steps=8000", "checkpoint.interval=800"]
    line += [f"outputs={outputs}"]
    server = Failing()
    for name, value in account(tmp_path / "home", server.url).items():
        monkeypatch.setenv(name, value)
    with serving(server):
        first = Forked(tmp_path / "said", *line, prepare=write_slowly)
        wait_until(lambda: len(server.rows()) > 30, what="rows on the server")
    there, rows = len(server.rows()), rows_below(outputs)
    wait_until(lambda: rows_below(outputs) > max(rows + 5, there + 3), what="rows without a server")
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    folder = run_below(outputs)
    assert folder is not None
    with serving(Failing(after=server)) as back:
        second = Forked(tmp_path / "again", *line)
        assert second.wait() == 0
        wait_until(lambda: 0 in back.exit_codes and not mirrors_of(outputs), 90, "the end of the mirror")
        assert [without_times(row) for row in back.rows()] == untimed(folder)


def test_f33_rows_on_the_server_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rows that a server has are not those of the run that goes on, a line says so; equal ones are skipped
    without a word."""
    outputs = tmp_path / "outputs"
    run = Launched(tmp_path / "said", *MIRRORED, "logger=local", "logger.interval=40", f"outputs={outputs}")
    assert run.end() == 0
    folder = run_below(outputs)
    assert folder is not None
    whole = (folder / "rows.jsonl").read_bytes()
    with serving(Failing()) as server:
        variables = account(tmp_path / "home", server.url)
        sync = [sys.executable, "-c", "from rlexp.cli.sync import main; main()", "--mode", "online", str(folder)]

        def sent() -> str:
            done = Launched(tmp_path / "sync", command=sync, environment=variables)
            assert done.end() == 0, done.errors()
            return done.output()[-1]

        (folder / "rows.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
        assert "differs" not in sent()
        (folder / "rows.jsonl").write_bytes(whole)
        assert "differs" not in sent()
        summary = json.loads(server.summary)
        server.summary = json.dumps(summary | {"updates": summary["updates"] + 1})
        assert "the server differs: its rows up to env_steps=800 are others than this run's" in sent()
        assert server.rows() == read_rows(folder / "rows.jsonl")


def test_f29_a_slow_server(tmp_path: Path) -> None:
    """A server that takes seconds for each call neither slows a run nor keeps it, and has all rows in the end."""
    with serving(Failing(delay=3.0)) as server:
        run = watched({"": launch(tmp_path, "logger.wandb.mode=online", url=server.url)})[""]
        assert run.code == 0
        assert run.first_row_at - run.folder_at < under_load(5.0)
        assert run.ended_at - run.finished_at < PATIENCE + under_load(3.0)
        wait_until(lambda: 0 in server.exit_codes and not mirrors_of(run.outputs), 90, "the end of the mirror")
        assert server.rows() == read_rows(run.folder / "rows.jsonl") != []


def test_f32_run_and_mirror_are_killed(tmp_path: Path) -> None:
    """A run that is killed with its mirror and all that W&B started loses no row, and rlexp-sync has each of them; the
    same command finishes the run, and its copy is one whole run."""
    outputs = tmp_path / "outputs"
    line = [*MIRRORED, "total_env_steps=4000", "evaluation.interval=4000", f"outputs={outputs}"]
    variables = account(tmp_path / "home", None)
    run = Launched(tmp_path / "said", *line, environment=variables)
    wait_until(lambda: rows_below(outputs) > 3 and len(mirrors_of(outputs)) > 1, what="rows and their mirror")
    run.send(signal.SIGKILL, to_group=True)
    assert kill_mirrors(outputs) > 1
    assert run.end() == -signal.SIGKILL
    folder = run_below(outputs)
    assert folder is not None
    sync = [sys.executable, "-c", "from rlexp.cli.sync import main; main()"]
    done = Launched(tmp_path / "sync", "--mode", "offline", str(folder), command=sync, environment=variables)
    assert done.end() == 0
    assert len(read_rows(folder / "rows.jsonl")) > 3
    (copy,) = wandb_folders(outputs)
    assert inspect(copy)["rows"] == read_rows(folder / "rows.jsonl")
    again = Launched(tmp_path / "again", *line, environment=variables)
    assert again.end() == 0
    (copy,) = wandb_folders(outputs)
    assert inspect(copy)["rows"] == read_rows(folder / "rows.jsonl")


def test_f32_the_mirror_alone_is_killed(tmp_path: Path) -> None:
    """A run whose mirror is killed finishes with code 0 and one line that names the remedy."""
    outputs = tmp_path / "outputs"
    line = [*MIRRORED, "total_env_steps=4000", "evaluation.interval=4000", f"outputs={outputs}"]
    run = Launched(tmp_path / "said", *line, environment=account(tmp_path / "home", None))
    wait_until(lambda: rows_below(outputs) > 0 and len(mirrors_of(outputs)) > 0, what="the mirror")
    kill_mirrors(outputs)
    assert run.end() == 0
    (line_of_it,) = [text for text in run.errors() if "not mirrored" in text]
    assert "its process died; rlexp-sync " in line_of_it


def test_f34_the_server_stalls_at_the_end(tmp_path: Path) -> None:
    """A server that no longer answers when a run has ended keeps it fifteen seconds, and its exit code stays 0."""
    with serving(Failing(stalls_at_the_end=True)) as server:
        run = watched({"": launch(tmp_path, "logger.wandb.mode=online", url=server.url)})[""]
        assert run.code == 0
        assert PATIENCE - 3.0 < run.ended_at - run.finished_at < PATIENCE + under_load(3.0)
        assert "goes on without this one; rlexp-sync" in run.said_of_wandb[-1]
        assert len(read_rows(run.folder / "rows.jsonl")) > 20
    kill_mirrors(run.outputs)
