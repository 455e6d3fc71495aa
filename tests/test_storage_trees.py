"""Checkpoints: every tree comes back as it was, all or nothing, and a damaged one is refused."""

import errno
import hashlib
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlexp import storage
from rlexp.errors import StorageError
from rlexp.storage.checkpoints import ASIDE, is_newer, load_tree, reap_unfinished, save_tree, tree_digest
from rlexp.trees import FORMAT, MAX_VALUES
from tests.disk import fail_at, in_child, kill_at, operations_of

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
tensors = arrays.map(lambda x: torch.from_numpy(np.array(x)))
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers()
trees = st.dictionaries(
    keys,
    st.recursive(plain | arrays | tensors, lambda x: st.lists(x, max_size=4) | st.dictionaries(keys, x, max_size=4)),
    max_size=5,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure and bits; a NaN is itself."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(x) is type(y) for x, y in zip(a, b, strict=True))
            and same(list(a.values()), list(b.values()))
        )
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


@given(tree=trees)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_tree_comes_back(tree: dict, tmp_path) -> None:
    save_tree(tmp_path / "a", tree)
    assert same(load_tree(tmp_path / "a"), tree)


def test_corner_cases_come_back(tmp_path) -> None:
    tree = {
        0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(6.0).view(2, 3).T},  # not contiguous
        "0": [math.nan, -math.inf, -0.0, 2**80, True, None, "", {}, []],
        "d": {"d": {"l": 1}, "f": "nan", "a": "0"},  # the names that the file itself uses
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(7, np.int64),
        "view": np.arange(10)[::-2],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    save_tree(tmp_path / "a", tree)
    loaded = load_tree(tmp_path / "a")
    assert same(loaded, {**tree, "parameter": torch.ones(2)})
    loaded["view"][:] = 0  # what came back may be written to


def test_numpy_numbers_that_are_floats_come_back_as_floats(tmp_path) -> None:
    values = [np.float64("nan"), np.float64("inf"), np.float64(1.5)]
    save_tree(tmp_path / "a", {"x": values})
    assert same(load_tree(tmp_path / "a"), {"x": [math.nan, math.inf, 1.5]})


def test_tuples_come_back_as_lists(tmp_path) -> None:
    save_tree(tmp_path / "a", {"x": (1, (2.0, "3"))})
    assert load_tree(tmp_path / "a") == {"x": [1, [2.0, "3"]]}


@pytest.mark.parametrize("tree", [{"x": object()}, {"x": {1, 2}}, {1.5: 0}, {None: 0}, {(1, 2): 0}, {"x": b"1"}])
def test_what_could_not_be_read_again_is_not_written(tmp_path, tree: dict) -> None:
    with pytest.raises(TypeError):
        save_tree(tmp_path / "a", tree)
    assert os.listdir(tmp_path) == []


def test_shared_memory_is_saved_as_it_is_at_that_moment(tmp_path) -> None:
    flat = torch.arange(4.0)
    save_tree(tmp_path / "a", {"x": flat[:2], "y": flat[1:], "z": flat})
    flat.zero_()
    loaded = load_tree(tmp_path / "a")
    assert [loaded[name].tolist() for name in "xyz"] == [[0, 1], [1, 2, 3], [0, 1, 2, 3]]


def test_the_digest_tells_contents_apart(tmp_path) -> None:
    one = save_tree(tmp_path / "a", {"x": torch.zeros(3)})
    assert save_tree(tmp_path / "b", {"x": torch.zeros(3)}) == one
    assert save_tree(tmp_path / "c", {"x": torch.ones(3)}) != one
    assert [tree_digest(tmp_path / name) == one for name in "abc"] == [True, True, False]
    (tmp_path / "a").rename(tmp_path / f"{ASIDE}a")  # as a save that was killed leaves it
    assert tree_digest(tmp_path / "a") == one
    with pytest.raises(StorageError, match="cannot read"):
        tree_digest(tmp_path / "none")


# ---------------------------------------------------------------------------------------------------------- atomicity

OLD = {"version": "old", "x": np.zeros(5)}
NEW = {"version": "new", "x": np.ones(7)}


def prepare(root: Path, replace: bool) -> Path:
    path = root / "a"
    for leftover in [*root.iterdir()]:
        storage.remove(leftover)
    if replace:
        save_tree(path, OLD)
    return path


def check_old_or_new(root: Path, replace: bool) -> str:
    """The version that loads, before and after what was left behind is removed."""
    path = root / "a"
    versions = set()
    for _ in range(2):
        try:
            version = load_tree(path)["version"]
        except StorageError:
            version = "none"
            assert not path.exists()  # not a part of one
        assert version in (("old", "new") if replace else ("none", "new"))
        versions.add(version)
        reap_unfinished(root)
    assert os.listdir(root) == ([] if version == "none" else ["a"])
    assert len(versions) == 1
    return version


@pytest.mark.parametrize("replace", [False, True])
def test_a_failure_at_any_operation_leaves_the_old_or_the_new_version(tmp_path, replace: bool) -> None:
    path = prepare(tmp_path, replace)
    count = operations_of(lambda: save_tree(path, NEW))
    assert count >= 9  # three files written and synced, two directories synced, one rename
    found = []
    for n in range(1, count + 1):
        path = prepare(tmp_path, replace)
        storage.before_operation = fail_at(n, errno.ENOSPC)
        with pytest.raises(StorageError, match="No space left"):
            save_tree(path, NEW)
        storage.before_operation = None
        found.append(check_old_or_new(tmp_path, replace))
    assert found == sorted(found, key=lambda version: version == "new")
    assert len(set(found)) == 2


@pytest.mark.parametrize("replace", [False, True])
def test_a_kill_at_any_operation_leaves_the_old_or_the_new_version(tmp_path, replace: bool) -> None:
    path = prepare(tmp_path, replace)
    count = operations_of(lambda: save_tree(path, NEW))
    found = []
    for n in range(1, count + 1):
        path = prepare(tmp_path, replace)
        assert in_child(lambda n=n: kill_at(n), lambda path=path: save_tree(path, NEW)) == 9
        found.append(check_old_or_new(tmp_path, replace))
    assert len(set(found)) == 2


def test_a_save_after_a_kill_at_any_operation_succeeds(tmp_path) -> None:
    path = prepare(tmp_path, True)
    count = operations_of(lambda: save_tree(path, NEW))
    for n in range(1, count + 1):
        prepare(tmp_path, True)
        in_child(lambda n=n: kill_at(n), lambda: save_tree(path, NEW))
        save_tree(path, {"version": "third"})
        assert load_tree(path) == {"version": "third"}
        reap_unfinished(tmp_path)
        assert os.listdir(tmp_path) == ["a"]


def test_reaping_leaves_all_else(tmp_path) -> None:
    save_tree(tmp_path / "a", OLD)
    (tmp_path / "note").write_text("mine")
    reap_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a", "note"]


# ------------------------------------------------------------------------------------------------------------- damage


def test_random_bit_flips_are_refused(tmp_path) -> None:
    rng, path = random.Random(0), tmp_path / "a"
    save_tree(path, {**OLD, "nested": {"k": [1, 2.5, None]}, "y": torch.randn(20)})
    files = sorted(path.iterdir())
    assert len(files) == 3
    for _ in range(200):
        file = rng.choice(files)
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        file.write_bytes(bad)
        with pytest.raises(StorageError) as caught:
            load_tree(path)
        assert "\n" not in str(caught.value)
        file.write_bytes(good)
    load_tree(path)


def test_truncations_extensions_and_missing_files_are_refused(tmp_path) -> None:
    rng, path = random.Random(0), tmp_path / "a"
    save_tree(path, OLD)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for length in {0, len(good) - 1, *(rng.randrange(len(good)) for _ in range(65))}:
            if not good[length:].strip():
                continue
            file.write_bytes(good[:length])
            with pytest.raises(StorageError):
                load_tree(path)
        file.write_bytes(good + b"x")
        with pytest.raises(StorageError):
            load_tree(path)
        file.unlink()
        with pytest.raises(StorageError):
            load_tree(path)
        file.write_bytes(good)
    load_tree(path)


@pytest.mark.parametrize(
    "manifest", [{"format": 999, "files": {}}, {}, [], 1, None, {"format": 1}, {"format": 1, "files": {"tree.json": 3}}]
)
def test_a_foreign_manifest_is_refused(tmp_path, manifest) -> None:
    save_tree(tmp_path / "a", OLD)
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError):
        load_tree(tmp_path / "a")


def test_a_newer_format_is_named(tmp_path) -> None:
    save_tree(tmp_path / "a", OLD)
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": FORMAT + 1}))
    with pytest.raises(StorageError, match=rf"format {FORMAT + 1}.*reads format {FORMAT}"):
        load_tree(tmp_path / "a")


def manifest_of(directory: Path, **changed: Any) -> Path:
    """The manifest with other words, which itself vouches for them."""
    path = directory / "manifest.json"
    said = {**json.loads(path.read_text()), **changed}
    said.pop("check")
    path.write_text(
        json.dumps({**said, "check": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()})
    )
    return path


def test_a_later_version_is_told_from_a_flipped_bit(tmp_path) -> None:
    save_tree(tmp_path / "a", OLD)
    assert not is_newer(tmp_path / "a")
    assert not is_newer(tmp_path / "none")
    good = (tmp_path / "a" / "manifest.json").read_bytes()
    for bit in range(8):
        altered = bytearray(good)
        altered[good.index(b": 1") + 2] ^= 1 << bit
        (tmp_path / "a" / "manifest.json").write_bytes(altered)
        assert not is_newer(tmp_path / "a")
        with pytest.raises(StorageError):
            load_tree(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_bytes(good)
    manifest_of(tmp_path / "a", format=FORMAT + 1)
    assert is_newer(tmp_path / "a")


def test_every_flipped_bit_of_a_manifest_is_refused(tmp_path) -> None:
    save_tree(tmp_path / "a", {})
    path = tmp_path / "a" / "manifest.json"
    good = path.read_bytes()
    for position in range(len(good)):
        for bit in range(8):
            altered = bytearray(good)
            altered[position] ^= 1 << bit
            path.write_bytes(altered)
            with pytest.raises(StorageError):
                load_tree(tmp_path / "a")


def test_a_manifest_of_before_it_vouched_for_itself_is_read(tmp_path) -> None:
    save_tree(tmp_path / "a", OLD)
    path = tmp_path / "a" / "manifest.json"
    said = json.loads(path.read_text())
    del said["check"]
    path.write_text(json.dumps(said))
    assert same(load_tree(tmp_path / "a"), OLD)


def test_more_than_can_be_read_again_is_not_written(tmp_path) -> None:
    for tree in ({"x": [0] * (MAX_VALUES + 1)}, {"x": "x" * 2**25}):
        with pytest.raises(StorageError, match="cannot write"):
            save_tree(tmp_path / "a", tree)
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(StorageError, match="nothing-here"):
        load_tree(tmp_path / "nothing-here")
