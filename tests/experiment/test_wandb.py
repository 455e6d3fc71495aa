"""The W&B mirror, read back with W&B's own reader, and against loopback servers: one that answers, one that hangs.

Runs are tiny and in this process where they are not to be killed.
"""

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlexp.cli import main as rlexp_cli
from rlexp.cli import sync as sync_cli
from rlexp.errors import ConfigError, EnvironmentFailure, NonFiniteError, ResourceError, StorageError
from rlexp.experiment import wandb_mirror, wandb_process, wandb_run
from rlexp.experiment.build import build
from rlexp.experiment.rows import Rows
from rlexp.storage import read_json, write_json
from rlexp.storage.locks import locked
from rlexp.storage.rows import RowLog, read_rows
from tests.experiment.support import Forked
from tests.experiment.wandb_runs import inspect, mirrored, no_account, wait_for, wandb_folders, without
from tests.experiment.wandb_server import answering_server

__all__ = ["no_account"]  # a fixture for every test here

TINY = ["env=probe_1", "algorithm=ppo", "experience.rollout_length=16", "evaluation.final_episodes=2"]
TINY += ["evaluation.episodes=1", "algorithm.num_epochs=1", "algorithm.num_minibatches=1", "display=plain"]
KEY = "0123456789" * 4


def run_of(outputs: Path) -> Path:
    (status,) = outputs.glob("*/*/*/run.json")
    return status.parent


def rlexp(outputs: Path, *overrides: str) -> Path:
    rlexp_cli.command([*TINY, f"outputs={outputs}", "total_env_steps=512", *overrides])
    return run_of(outputs)


def untimed(directory: Path) -> list[dict[str, Any]]:
    """The training rows but for their times."""
    rows = read_rows(directory / "rows.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# ------------------------------------------------------------------------------------------------------------- offline


def test_finished_run_is_mirrored_whole_and_can_be_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = rlexp(tmp_path / "o", "tags=[mine]", "seed=3")
    without_wandb = rlexp(tmp_path / "local", "logger=local", "seed=3")
    assert not (tmp_path / "local" / "wandb").exists()
    assert untimed(directory) == untimed(without_wandb) != []
    assert "W&B: offline" in capsys.readouterr().err
    facts, rows = read_json(directory / "run.json"), read_rows(directory / "rows.jsonl")
    (folder,) = wandb_folders(tmp_path / "o")
    seen = inspect(folder)
    assert seen["run"]["run_group"] == facts["group"] == directory.parent.name
    assert seen["run"]["display_name"] == facts["name"]
    assert seen["run"]["run_id"] == facts["wandb_id"]
    assert seen["run"]["project"] == "rlexp"
    assert seen["run"]["tags"] == ["ppo", "rlexp/Probe1-v0", "mine"]
    config = seen["run"]["config"]["update"]
    assert config["seed"] == 3
    assert config["experience"]["rollout_length"] == 16
    assert config["algorithm"]["gamma"] > 0
    assert seen["rows"] == rows
    assert {"name": "env_steps", "options": {"defined": True}} in seen["metrics"]
    assert any(m.get("glob_name") == "*" and m["step_metric"] == "env_steps" for m in seen["metrics"])
    assert seen["exits"] == [0]

    capsys.readouterr()
    assert sync_cli.command(["--mode", "offline", str(directory)]) == 0
    assert f"{directory}: {len(rows)} rows, finished, offline" in capsys.readouterr().out
    (again,) = wandb_folders(tmp_path / "o")
    assert again != folder
    made_anew = inspect(again)
    assert {key: made_anew[key] for key in ("rows", "metrics", "exits")} == {
        key: seen[key] for key in ("rows", "metrics", "exits")
    }
    assert without(made_anew["run"], "start_time", "telemetry") == without(seen["run"], "start_time", "telemetry")


def test_wandb_mode_disabled_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **named: pytest.fail("a process was started"))
    mirror = wandb_mirror.Mirror([tmp_path], {"mode": "auto", "project": "p", "entity": None}, pytest.fail)
    mirror.start()
    mirror.row({})
    mirror.wait()


def test_a_mirror_that_cannot_start_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    said: list[str] = []
    mirror = wandb_mirror.Mirror([tmp_path], {"mode": "auto", "project": "p", "entity": None}, said.append)
    mirror.start()
    mirror.start()
    mirror.row({})
    mirror.wait()
    assert len(said) == 1
    assert "W&B: not mirrored" in said[0]
    assert "Resource temporarily unavailable" in said[0]


def test_killed_run_is_failed_and_its_continuation_is_one_whole_run(tmp_path: Path) -> None:
    outputs = tmp_path / "o"
    overrides = [*TINY, f"outputs={outputs}", "total_env_steps=3_000", "logger.interval=200", "checkpoint.interval=400"]
    process = Forked(tmp_path / "said", *overrides, prepare=write_slowly)
    wait_for(lambda: list(outputs.glob("*/*/*/rows.jsonl")))
    directory = run_of(outputs)
    wait_for(lambda: len(read_rows(directory / "rows.jsonl")) >= 4)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert wait_for(lambda: mirrored(directory))["exit_code"] != 0
    (folder,) = wandb_folders(outputs)
    seen = inspect(folder)
    assert seen["rows"] == read_rows(directory / "rows.jsonl")
    assert seen["exits"] == [wandb_process.UNKNOWN_END]

    rlexp_cli.command(overrides)
    (whole,) = wandb_folders(outputs)
    assert whole != folder
    seen = inspect(whole)
    assert seen["rows"] == read_rows(directory / "rows.jsonl")
    assert [row["seq"] for row in seen["rows"]] == list(range(len(seen["rows"])))
    assert seen["exits"] == [0]


def write_slowly() -> None:
    write = Rows.write_training_rows

    def slowly(*given: Any) -> None:
        time.sleep(0.1)
        write(*given)

    Rows.write_training_rows = slowly


def test_failed_run_is_failed_and_what_is_not_finite_stays_so(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        rlexp(tmp_path, "optimizer.learning_rate=1e30", "optimizer.max_grad_norm=null", "algorithm.num_epochs=10")
    rows = read_rows(run_of(tmp_path) / "rows.jsonl")
    (folder,) = wandb_folders(tmp_path)
    seen = inspect(folder)
    assert seen["exits"] == [NonFiniteError.code]
    assert any(value == "NaN" for row in rows for value in row.values())
    assert seen["rows"] == rows  # the reader writes them as the rows do


def test_each_job_of_a_sweep_has_its_own_run_whatever_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job fails while its parts are built, the second finishes in the same process."""

    def build_or_fail(config: Any, *rest: Any) -> Any:
        if config["seed"] == 1:
            raise EnvironmentFailure("the licence has expired")
        return build(config, *rest)

    monkeypatch.setattr("rlexp.experiment.run.build", build_or_fail)
    sweep = ["-m", "seed=1,2", *TINY, f"outputs={tmp_path}", "total_env_steps=256"]
    assert rlexp_cli.command(sweep) == EnvironmentFailure.code
    seen = {found["run"]["run_id"]: found for found in map(inspect, wandb_folders(tmp_path))}
    assert len(seen) == 2
    for seed, code in ((1, EnvironmentFailure.code), (2, 0)):
        (directory,) = tmp_path.glob(f"*/*/s{seed}")
        of_job = seen[read_json(directory / "run.json")["wandb_id"]]
        assert of_job["exits"] == [code]
        assert of_job["rows"] == read_rows(directory / "rows.jsonl")
        assert of_job["run"]["config"]["update"]["seed"] == seed


def test_stacked_seeds_have_a_run_each_and_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    start = subprocess.Popen

    def note(*given: Any, **named: Any) -> "subprocess.Popen[bytes]":
        if "rlexp.experiment.wandb_process" in given[0]:
            started.append(given[0])
        return start(*given, **named)

    monkeypatch.setattr(subprocess, "Popen", note)
    rlexp_cli.command([*TINY, f"outputs={tmp_path}", "total_env_steps=512", "seeds=[3,0]"])
    assert len(started) == 1
    assert capsys.readouterr().err.count("W&B: offline") == 1
    (directory,) = tmp_path.glob("*/*/seeds_*")
    seen = {run["run"]["run_id"]: run for run in map(inspect, wandb_folders(tmp_path))}
    for folder in (directory / "s3", directory / "s0"):
        facts = read_json(folder / "run.json")
        one = seen.pop(facts["wandb_id"])
        assert (one["run"]["run_group"], one["run"]["display_name"]) == (facts["group"], facts["name"])
        assert one["rows"] == read_rows(folder / "rows.jsonl") != []
        assert one["exits"] == [0]
    assert seen == {}
    capsys.readouterr()
    assert sync_cli.command(["--mode", "offline", str(directory)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == [str(directory / "s3"), str(directory / "s0")]
    assert len(wandb_folders(tmp_path)) == 2


def test_what_fails_for_one_seed_does_not_concern_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rlexp_cli.command([*TINY, f"outputs={tmp_path}", "total_env_steps=512", "seeds=[3,0]", "logger=local"])
    (directory,) = tmp_path.glob("*/*/seeds_*")
    write_json(directory / "s3" / "run.json", {"no": "identity"})
    target = wandb_run.Target("offline", "p", None)
    assert wandb_process.mirror_all([directory / "s3", directory / "s0"], target, lambda: False) == [directory / "s3"]
    assert "is not the folder of a run" in read_json(directory / "s3" / "wandb.json")["error"]
    (folder,) = wandb_folders(tmp_path)
    assert inspect(folder)["rows"] == read_rows(directory / "s0" / "rows.jsonl") != []


def test_a_server_that_is_lost_between_two_seeds_does_not_end_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlexp_cli.command([*TINY, f"outputs={tmp_path}", "total_env_steps=512", "seeds=[3,0]", "logger=local"])
    (directory,) = tmp_path.glob("*/*/seeds_*")
    import wandb

    init, calls = wandb.init, []

    def lost_the_second_time(**named: Any) -> Any:
        calls.append(named["id"])
        if len(calls) == 2:
            raise RuntimeError("no answer")
        return init(**named | {"mode": "offline"})

    monkeypatch.setattr(wandb, "init", lost_the_second_time)
    target = wandb_run.Target("auto", "p", None)
    assert wandb_process.mirror_all([directory / "s3", directory / "s0"], target, lambda: False) == []
    assert len(calls) == 3
    found = {one["run"]["run_id"]: one for one in map(inspect, wandb_folders(tmp_path))}
    for name in ("s3", "s0"):
        one = found[read_json(directory / name / "run.json")["wandb_id"]]
        assert one["rows"] == read_rows(directory / name / "rows.jsonl")
        assert one["exits"] == [0]


def test_each_seed_of_a_run_that_could_not_be_built_is_mirrored_once_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str]] = []

    def fail(*given: Any) -> None:
        raise EnvironmentFailure("the licence has expired")

    def note(self: wandb_mirror.Mirror) -> None:
        started.extend((each.name, read_json(each / "status.json")["state"]) for each in self._directories)

    monkeypatch.setattr("rlexp.experiment.run.build", fail)
    monkeypatch.setattr(wandb_mirror.Mirror, "start", note)
    with pytest.raises(EnvironmentFailure):
        rlexp(tmp_path, "seeds=[3,0]")
    assert started == [("s3", "failed"), ("s0", "failed")]


def test_rows_that_are_not_finite_are_logged_as_numbers() -> None:
    numbers = wandb_process._as_numbers({"a": "NaN", "b": "-Infinity", "kind": "train", "seq": 0, "l": [1]})
    assert math.isnan(numbers.pop("a"))
    assert numbers == {"b": -math.inf, "kind": "train", "seq": 0, "l": [1]}


def test_follower_reads_each_row_once_and_waits_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    follower = wandb_process.Follower(path)
    assert list(follower.new_rows()) == []
    log = RowLog(path)
    log.append({"a": 1})
    log.append({"a": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [row["a"] for row in follower.new_rows()] == [1]
    path.write_bytes(whole)
    assert [row["a"] for row in follower.new_rows()] == [2]
    assert list(follower.new_rows()) == []
    log.close()


def test_the_end_of_a_run_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(wandb_process, "POLL", 0.01)
        assert wandb_process._parent_lives(os.getppid())
        assert not wandb_process._parent_lives(1)
        os.close(writing)
        monkeypatch.setattr(wandb_process, "POLL", 600.0)
        assert not wandb_process._parent_lives(os.getppid())


# ---------------------------------------------------------------------------------------------------------- rlexp-sync


def test_sync_refuses_what_is_no_run_or_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = rlexp(tmp_path / "o", "logger=local")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        sync_cli.command([str(directory), str(tmp_path)])
    assert not (tmp_path / "o" / "wandb").exists()
    with locked(directory), pytest.raises(StorageError, match="is in use by"):
        sync_cli.sync(directory, "auto", None, None)
    monkeypatch.setattr(sync_cli, "PATIENCE", 0.1)
    with wandb_process.mirror_lock(directory, None), pytest.raises(StorageError, match="another process"):
        sync_cli.sync(directory, "auto", None, None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match="switched off"):
        sync_cli.sync(directory, "auto", None, None)


# -------------------------------------------------------------------------------------------------------------- online


def test_a_server_gets_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = rlexp(tmp_path / "o", "logger=local")
    rows = read_rows(directory / "rows.jsonl")
    whole = (directory / "rows.jsonl").read_bytes()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with answering_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        lines = whole.splitlines(keepends=True)
        (directory / "rows.jsonl").write_bytes(b"".join(lines[:3]))
        write_json(directory / "status.json", {"state": "interrupted", "exit_code": 130})
        assert sync_cli.command(["--mode", "online", str(directory)]) == 0
        assert server.rows() == rows[:3]
        assert server.exit_codes == [130]
        (directory / "rows.jsonl").write_bytes(whole)
        write_json(directory / "status.json", {"state": "finished", "exit_code": 0})
        assert sync_cli.command([str(directory)]) == 0
    assert server.rows() == rows
    assert server.exit_codes == [130, 0]


def test_a_server_that_hangs_delays_neither_training_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    alone = rlexp(tmp_path / "alone", "logger=local")
    seconds_alone = time.monotonic() - began
    monkeypatch.setattr(wandb_mirror, "PATIENCE", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with hanging_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        began = time.monotonic()
        hung = rlexp(tmp_path / "hung", "logger.wandb.mode=online")
        seconds = time.monotonic() - began
        match = re.search(r"W&B: process (\d+) goes on", capsys.readouterr().err)
        assert match is not None
        assert "libtorch" not in Path(f"/proc/{match[1]}/maps").read_text()
        os.kill(int(match[1]), signal.SIGKILL)
    assert read_json(hung / "status.json")["state"] == "finished"
    assert len(read_rows(hung / "rows.jsonl")) == len(read_rows(alone / "rows.jsonl"))
    assert seconds < seconds_alone + 2.0 + 3.0  # the bound, and what the process takes to start on a busy machine


def test_without_a_server_the_copy_is_made_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = rlexp(tmp_path / "o", "logger=local")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(wandb_run, "INIT_TIMEOUT", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert sync_cli.command(["--mode", "online", str(directory)]) == ResourceError.code
    assert "not sent to W&B" in capsys.readouterr().err
    (folder,) = wandb_folders(tmp_path / "o")
    assert folder.name.startswith("offline-")
    assert inspect(folder)["rows"] == read_rows(directory / "rows.jsonl")
