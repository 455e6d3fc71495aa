"""Runs, checkpoints and weights that somebody else made, with intent; and what others may do with what we make."""

import json
import os
import resource
import shutil
import signal
import stat
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlexp.errors import RlexpError, StorageError
from rlexp.experiment.identity import experiment_directory, family_name
from rlexp.experiment.saved import evaluate_saved
from rlexp.storage import open_log, read_json, write_json
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.storage.rows import RowLog, read_rows
from tests.experiment.support import TINY, Forked, run_in
from tests.faults.corpus import PLACES, good, hostile
from tests.faults.lab import Launched

ELSEWHERE = {
    "F59": ["tests/test_storage.py::test_a_lock_that_is_a_link_is_refused"],
}
NOT_INJECTED: dict[str, str] = {}

QUICK = ["algorithm=value_iteration", "env=frozen_lake", *TINY, "total_env_steps=400"]
SECONDS = 2.0
SMALL = 100 * 2**20  # bytes of memory that even a small file may cost


def in_child(action: Callable[[], None]) -> tuple[str, float, int]:
    """Run in a forked process: what it raised, its seconds of processor, by how many bytes its memory grew.

    Whatever starts a program there, or opens a file for writing, is an error of its own.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(60)  # what waits for ever answers nothing
        said: str = "nothing"
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before, began = _peak(), time.process_time()
            sys.addaudithook(_refuse_deeds)
            try:
                action()
            except StorageError as error:
                said = f"StorageError: {error}"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, json.dumps([said[:2000], time.process_time() - began, _peak() - before]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    said, seconds, grown = json.loads(answer)
    return said, seconds, grown


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _refuse_deeds(event: str, arguments: tuple) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.system", "subprocess.Popen", "exec", "os.exec", "pickle.find_class", "socket.connect"):
        raise AssertionError(f"a hostile file did this: {event} {arguments}")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def test_f55_hostile_checkpoints_are_refused(tmp_path: Path) -> None:
    """Pickles in every place, a zip bomb, headers of gigabytes, a million arrays, doubled keys, names that lead out of
    the folder, links, pipes and devices: each is refused in one line and 2 s of processor, no code runs, nothing is
    written, and memory grows by less than twice the files or 100 MB."""
    canary = tmp_path / "canary"
    good(tmp_path / "good")
    assert load_tree(tmp_path / "good")["x"].tolist() == [0, 0]
    corpus = hostile(tmp_path / "corpus", canary)
    assert len(corpus) > 50
    for name, folder in corpus.items():
        size = size_of(folder)
        said, seconds, grown = in_child(lambda folder=folder: load_tree(folder))
        assert said.startswith("StorageError: "), (name, said)
        assert "\n" not in said, name
        assert seconds < SECONDS, (name, seconds)
        assert grown < max(2 * size, SMALL), (name, grown, size)
    assert not canary.exists()


def test_f55_a_large_checkpoint_takes_its_size_in_memory(tmp_path: Path) -> None:
    """A good checkpoint of 300 MB is loaded with less than twice its size in memory."""
    save_tree(tmp_path / "a", {"columns": [torch.zeros(25 * 2**20), torch.ones(50 * 2**20).numpy()]})
    said, _, grown = in_child(lambda: load_tree(tmp_path / "a") and None)
    assert said == "nothing"
    assert grown < 1.3 * size_of(tmp_path / "a")


def sealed_row(row: bytes) -> bytes:
    return row[:-1] + b',"crc":%d}\n' % zlib.crc32(row)


@pytest.mark.parametrize("row", [b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"x":' + b"9" * 100_000 + b"}"])
def test_f55_hostile_rows_end_the_good_ones(row: bytes, tmp_path: Path) -> None:
    """A row of lists a hundred thousand deep, or a number as long, with a checksum that fits, is as a torn one."""
    log = RowLog(tmp_path / "rows.jsonl")
    log.append({"env_steps": 1})
    log.close()
    with open(tmp_path / "rows.jsonl", "ab") as file:
        file.write(sealed_row(row))
    assert [row["env_steps"] for row in read_rows(tmp_path / "rows.jsonl")] == [1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    return run_in(tmp_path_factory.mktemp("finished"), *QUICK)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, in an outputs folder of its own."""
    copy = tmp_path / "outputs" / finished.relative_to(finished.parents[2])
    shutil.copytree(finished, copy)
    return copy


def altered(**changed: object) -> Callable[[dict], dict]:
    return lambda tree: {**tree, **changed}


WEIGHTS: dict[str, Callable[[dict], dict]] = {
    "no weights": lambda tree: {"env_steps": 1},
    "weights that are a number": altered(weights=17),
    "weights that are text": altered(weights={"q": "text"}),
    "another network": altered(weights={"other": torch.zeros(3)}),
    "another shape": altered(weights={"q": torch.zeros(3, 3)}),
    "steps that are text": altered(env_steps="many"),
    "steps that are nothing": altered(env_steps=None),
    "nothing": lambda tree: {},
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_f55_hostile_weights_are_refused(kind: str, run: Path) -> None:
    """Weights that are whole and yet no weights of this run are refused in one line."""
    path = run / "weights" / "final"
    save_tree(path, WEIGHTS[kind](load_tree(path)))
    with pytest.raises(RlexpError) as caught:
        evaluate_saved(run, "final", 3, None)
    assert caught.value.code == 5


CHECKPOINTS: dict[str, Callable[[dict], dict]] = {
    "a part that is a number": altered(state=17),
    "a part that is empty": altered(experience={}),
    "rows that never were": lambda tree: {**tree, "rows": {**tree["rows"], "rows": [10**18]}},
    "no lines": altered(run={"lines": [1, 2]}),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_f55_hostile_states_are_refused(kind: str, run: Path, tmp_path: Path) -> None:
    """A checkpoint that is whole and yet no state of this run ends the command with exit code 5 and one line."""
    newest = max((run / "checkpoints").glob("[0-9]*"))
    save_tree(newest, CHECKPOINTS[kind](load_tree(newest)))
    write_json(run / "status.json", {"state": "running"})
    again = Forked(tmp_path / "said", *QUICK, f"outputs={run.parents[2]}")
    assert again.wait() == 5
    assert len(again.stderr().splitlines()) == 1


# ------------------------------------------------------------------------------------------------- where it is written


@pytest.mark.parametrize("name", ["checkpoints", "weights", "evaluations", "rows.jsonl", "."])
def test_f57_a_link_inside_a_run_is_not_written_through(name: str, run: Path, tmp_path: Path) -> None:
    """A run of somebody else's whose folders or rows are links to another place is not continued there: exit code 5,
    and what lies there stays as it was."""
    elsewhere = tmp_path / "elsewhere"
    place = run / name
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    write_json(run / "status.json", {"state": "running"})
    paths = [elsewhere] if elsewhere.is_file() else [path for path in sorted(elsewhere.rglob("*")) if path.is_file()]
    before = [(path, path.read_bytes()) for path in paths]
    again = Forked(tmp_path / "said", *QUICK, f"outputs={run.parents[2]}")
    assert again.wait() == 5
    assert len(again.stderr().splitlines()) == 1
    assert [(path, path.read_bytes()) for path in paths if path.name not in ("status.json", "lock")] == [
        (path, data) for path, data in before if path.name not in ("status.json", "lock")
    ]


def test_f57_an_evaluation_is_not_written_through_a_link(run: Path, tmp_path: Path) -> None:
    """`rlexp-evaluate` on a run whose folder of evaluations is a link writes nothing at its end."""
    shutil.rmtree(run / "evaluations")
    (tmp_path / "elsewhere").mkdir()
    (run / "evaluations").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="leads out of"):
        evaluate_saved(run, "final", 3, None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_f57_small_files_are_not_read_through_a_link(tmp_path: Path) -> None:
    """Where a small file or a log should be and a link, a pipe or a folder is, it is refused at once and stays."""
    (tmp_path / "mine").write_text("{}")
    for name, put in {**PLACES, "a link": lambda path: path.symlink_to(tmp_path / "mine")}.items():
        path = tmp_path / name
        put(path)
        for read in (read_json, RowLog):
            if not (read is RowLog and name == "a pipe"):
                with pytest.raises(StorageError):
                    read(path)
    with pytest.raises(StorageError):
        open_log(tmp_path / "a link")
    assert (tmp_path / "mine").read_text() == "{}"


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "a/../../b", "..", "a\nb", "ünï 中", "-rf", "x" * 300])
def test_f57_no_name_leads_out_of_the_outputs_folder(name: str, tmp_path: Path) -> None:
    """Whatever an environment, a tag or a run is called, all that is made lies in the outputs folder: a name that could
    lead out of it becomes one that cannot."""
    config = {
        "algorithm": {"_target_": "rlexp.algorithms.ppo.PPO"},
        "env": {"id": name},
        "outputs": str(tmp_path / "o"),
    }
    folder = experiment_directory(config)
    assert folder.resolve().is_relative_to((tmp_path / "o").resolve())
    assert folder.parent.parent == tmp_path / "o"
    assert len(family_name(config)) < 100


@pytest.mark.parametrize("words", [["env.id=../../x"], ["env.id=/abs/x"], ["tags=[../../x,/abs]"], ["seed=../1"]])
def test_f57_a_command_makes_nothing_outside_its_outputs_folder(words: list[str], tmp_path: Path) -> None:
    """A command whose environment, tag or seed is a path ends with exit code 2 or does its work, and beside its outputs
    folder there is nothing new."""
    again = Forked(tmp_path / "said", *QUICK, *words, f"outputs={tmp_path / 'a' / 'outputs'}")
    assert again.wait() in (0, 2)
    assert {path.name for path in tmp_path.iterdir()} <= {"said", "a"}
    assert {path.name for path in (tmp_path / "a").glob("*")} <= {"outputs"}
    assert not Path("/abs").exists()


@pytest.mark.parametrize("word", ["outputs=", "extend="])
def test_f57_a_path_with_a_nul_is_refused(word: str, tmp_path: Path) -> None:
    """A path that holds the character NUL, at which the system would cut it short, is refused with exit code 2."""
    again = Forked(tmp_path / "said", *QUICK, f"{word}{tmp_path}/a\0b")
    assert again.wait() == 2
    assert len(again.stderr().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


# --------------------------------------------------------------------------------------------------------- who may what


def modes(root: Path) -> dict[str, int]:
    found = {}
    for folder, _, names in os.walk(root):
        for path in [Path(folder), *(Path(folder) / name for name in names)]:
            if not path.is_symlink():
                found[str(path.relative_to(root))] = stat.S_IMODE(path.stat().st_mode)
    return found


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o000, 0o640, 0o750), (0o077, 0o600, 0o700)])
def test_f59_nobody_else_may_write(umask: int, file: int, folder: int, tmp_path: Path) -> None:
    """Under an umask of 000 the files of a run are 0640 and its folders 0750, W&B's too; a stricter umask holds."""
    outputs = tmp_path / "outputs"
    run = Launched(
        tmp_path / "said",
        *[word for word in QUICK if not word.startswith("logger=")],
        "logger.wandb.mode=offline",
        f"outputs={outputs}",
        prepare=lambda: os.umask(umask) and None,
    )
    assert run.end() == 0, run.errors()
    found = modes(outputs)
    assert len(found) > 20
    assert any("wandb" in name for name in found)
    wrong = {name: oct(mode) for name, mode in found.items() if mode & ~(folder if (outputs / name).is_dir() else file)}
    assert wrong == {}
