"""Checkpoints of a real run that were damaged, or are of another version or another run."""

import shutil
from pathlib import Path

import pytest
from damage import RUN, Damage, cuts, flips, make_run, measure, try_damage
from kill_storm import difference

from rlexp.storage import write_json
from rlexp.storage.checkpoints import is_newer, load_tree, tree_digest
from rlexp.storage.rows import read_rows
from tests.experiment.support import Forked
from tests.test_storage_trees import manifest_of

ELSEWHERE = {
    "F22": ["tests/test_storage_trees.py::test_every_flipped_bit_of_a_manifest_is_refused"],
}
NOT_INJECTED: dict[str, str] = {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs folder of a finished run with two checkpoints; not to be changed."""
    outputs = tmp_path_factory.mktemp("finished")
    make_run(outputs)
    return outputs


@pytest.fixture
def outputs(finished: Path, tmp_path: Path) -> Path:
    """A copy of it whose run was killed after its last save."""
    copy = tmp_path / "outputs"
    shutil.copytree(finished, copy)
    write_json(folder_of(copy) / "status.json", {"state": "running"})
    return copy


def folder_of(outputs: Path) -> Path:
    (folder,) = outputs.glob("*/*/s0")
    return folder


def checkpoints(outputs: Path) -> list[Path]:
    return sorted((folder_of(outputs) / "checkpoints").glob("[0-9]*"))


def run_again(outputs: Path, *words: str) -> tuple[int, list[str]]:
    """The same command once more; returns its exit status and what it said."""
    said = outputs.parent / "said"
    again = Forked(said, *[word for word in RUN if not word.startswith("display")], *words, f"outputs={outputs}")
    return again.wait(), said.read_text().splitlines()


def rows(outputs: Path) -> list[dict]:
    every = read_rows(folder_of(outputs) / "rows.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in every]


def assert_as_undisturbed(outputs: Path, finished: Path) -> None:
    assert rows(outputs) == rows(finished)
    for mine, theirs in zip(checkpoints(outputs), checkpoints(finished), strict=True):
        assert difference(load_tree(mine), load_tree(theirs)) is None


def test_f22_flipped_bits_and_f21_cut_files_are_refused(tmp_path: Path) -> None:
    """After one of 500 random flipped bits, or a cut at any length of small files and any 1/64 of large ones, the
    checkpoint is refused and the one before it is loaded, equal in every bit."""
    figures = measure(tmp_path, 500, seed=1)
    assert figures["not_as_promised"] == []
    assert figures["flips"] == 500
    assert figures["truncations"] > 2000
    assert figures["zeroed"] > 100
    assert figures["fell_back"] == figures["refused"] == sum(figures[k] for k in ("flips", "truncations", "zeroed"))


@pytest.mark.parametrize("kind", ["flip", "truncation", "zeros"])
def test_f21_a_run_goes_on_from_the_checkpoint_before(kind: str, outputs: Path, finished: Path) -> None:
    """A killed run whose newest checkpoint is damaged says so in one line, goes on from the one before it, and ends
    with the rows and the checkpoint of the run that nothing happened to."""
    newest = checkpoints(outputs)[-1]
    damages: list[Damage] = [*flips(newest, 1, seed=2), *cuts(newest)]
    damage = [each for each in damages if each.kind == kind][-1]
    (newest / damage.file).write_bytes(damage.data)
    status, said = run_again(outputs)
    assert status == 0
    passed_over = [line for line in said if "passed over a damaged checkpoint" in line]
    assert len(passed_over) == 1
    assert str(newest) in passed_over[0]
    assert_as_undisturbed(outputs, finished)


def test_f21_without_a_good_checkpoint_the_run_ends_with_code_5(outputs: Path) -> None:
    """Where no checkpoint is good any more, the command ends with exit code 5 and one line, and the rows stay as they
    were."""
    for checkpoint in checkpoints(outputs):
        (checkpoint / "tensors.safetensors").write_bytes(b"")
    before = rows(outputs)
    status, said = run_again(outputs)
    assert (status, rows(outputs)) == (5, before)
    assert "no good checkpoint is left" in said[-1]
    assert "restart=true begins anew" in said[-1]


# ------------------------------------------------------------------------------------------------------ other versions

GOLDEN = Path(__file__).parent / "format_1"


def test_f23_a_checkpoint_of_format_1_is_read() -> None:
    """A checkpoint that version 0.1.0 wrote, kept beside the tests, is read value for value."""
    tree = load_tree(GOLDEN)
    assert tree_digest(GOLDEN) == "2abcf22066349167315806772526c9e505b7e7466699f77ca19ab039d204c538"
    assert tree["state"]["updates"] == 26
    assert tree["state"]["weights"]["q"][:2].tolist() == [-1.0122140645980835, 0.5713597536087036]
    assert tree["experience"]["buffer"]["columns"]["observation"].shape == (100, 4)
    assert "algorithm.gamma=0.99" in tree["run"]["lines"]


def test_f23_a_later_version_is_refused(outputs: Path) -> None:
    """A run whose newest checkpoint a later version wrote ends with exit code 5 and names both formats; it does not go
    on from an older checkpoint."""
    newest = checkpoints(outputs)[-1]
    manifest_of(newest, format=2)
    assert is_newer(newest)
    before = {path: path.read_bytes() for path in newest.parent.rglob("*") if path.is_file()}
    status, said = run_again(outputs)
    assert status == 5
    assert (
        "checkpoint format 2, this version of rlexp reads format 1; continue with the version that wrote it" in said[-1]
    )
    assert {path: path.read_bytes() for path in newest.parent.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------------------------- other runs

OTHERS = {
    "env.id": ["env=acrobot"],
    "network.hidden": ["network.hidden=[16]"],
    "algorithm._target_": ["algorithm=ppo", "experience.rollout_length=25", "algorithm.num_minibatches=1"],
    "experience.num_envs": ["experience.num_envs=2"],
    "experience.capacity": ["experience.capacity=400"],
    "seeds": ["seed=1"],
    "normalization": ["normalization=observations"],
}


@pytest.mark.parametrize("field", OTHERS)
def test_f24_a_checkpoint_of_another_run_is_refused(field: str, outputs: Path, tmp_path: Path) -> None:
    """The checkpoint of another environment, network, algorithm, number of environments, buffer or seed, put into a
    run, ends it with exit code 2 and the name of the first field that differs; nothing is loaded and no row is cut."""
    dropped = ("experience.", "network.") if field.startswith("algorithm") else ()
    line = [word for word in RUN if not word.startswith(dropped)] if dropped else RUN
    other = tmp_path / "other"
    assert Forked(tmp_path / "first", *line, *OTHERS[field], f"outputs={other}").wait() == 0
    (target,) = other.glob("*/*/s*")
    shutil.rmtree(target / "checkpoints")
    shutil.copytree(folder_of(outputs) / "checkpoints", target / "checkpoints")
    write_json(target / "status.json", {"state": "running"})
    kept = (target / "rows.jsonl").read_bytes()
    again = Forked(tmp_path / "second", *line, *OTHERS[field], f"outputs={other}")
    assert again.wait() == 2
    said = again.stderr().splitlines()[-1]
    assert "is a checkpoint of another run: " in said
    assert " there, " in said
    if not field.startswith("algorithm"):
        assert f"run: {field}" in said
    assert (target / "rows.jsonl").read_bytes() == kept


def test_the_measure_sees_what_is_loaded_as_good(finished: Path) -> None:
    """It is not a promise: the instrument is tried on a checkpoint that nothing was done to."""
    newest = checkpoints(finished)[-1]
    untouched = Damage("flip", "tree.json", 0, (newest / "tree.json").read_bytes())
    assert try_damage(newest, untouched, load_tree(checkpoints(finished)[-2])) == (False, False)
