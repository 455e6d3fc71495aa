"""Whatever bytes lie in the place of a checkpoint: a tree comes back, or one line says why not. Minutes."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlexp import trees
from rlexp.errors import StorageError
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.storage.rows import parse_row, read_rows
from tests.faults.corpus import sealed
from tests.test_storage_trees import same
from tests.test_storage_trees import trees as any_tree

pytestmark = pytest.mark.slow
thorough = settings(max_examples=1500, suppress_health_check=list(HealthCheck))

FILES = (trees.TREE, trees.TENSORS, trees.MANIFEST)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.sampled_from("dlfatx") | st.text(max_size=4), x, max_size=3),
    max_leaves=25,
)
KINDS = st.sampled_from([*trees.DTYPES, "F8_E4M3", "C64", "nothing", 3])
entries = st.fixed_dictionaries(
    {
        "dtype": KINDS,
        "shape": st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**62]), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40) | st.sampled_from([2**62, 2**64]), min_size=2, max_size=2),
    }
)
headers = st.dictionaries(st.text(max_size=3), entries | json_values, max_size=4) | json_values


def tensors(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def loads_or_says_why(folder: Path) -> dict[str, Any] | None:
    tree: dict[str, Any] | None
    said = str(folder)
    try:
        tree = load_tree(folder)
    except StorageError as error:
        tree, said = None, str(error)
    assert str(folder) in said
    assert "\n" not in said
    assert tree is None or isinstance(tree, dict)
    return tree


@given(tree=any_tree, name=st.sampled_from(FILES), data=st.data())
@thorough
def test_altered_files_that_vouch_for_each_other(tree: dict, name: str, data: Any, tmp_path: Path) -> None:
    """Bytes are changed, put in and taken out of one file, and the manifest is made anew for what is there."""
    folder = tmp_path / "a"
    save_tree(folder, tree)
    altered = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(altered)))
        cut = data.draw(st.integers(0, 12))
        altered[place : place + cut] = data.draw(st.binary(max_size=12))
    (folder / name).write_bytes(altered)
    if name != trees.MANIFEST:
        sealed(folder)
    loads_or_says_why(folder)


@given(files=st.tuples(*[st.binary(max_size=200)] * 3), seal=st.booleans())
@thorough
def test_any_bytes(files: tuple[bytes, ...], seal: bool, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir(exist_ok=True)
    for name, data in zip(FILES, files, strict=True):
        (folder / name).write_bytes(data)
    if seal:
        sealed(folder)
    assert loads_or_says_why(folder) is None or seal


@given(plain=json_values, manifest=json_values, seal=st.booleans())
@thorough
def test_any_json(plain: Any, manifest: Any, seal: bool, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    save_tree(folder, {"x": torch.zeros(2)})
    (folder / trees.TREE).write_text(json.dumps(plain))
    sealed(folder)
    if not seal:
        (folder / trees.MANIFEST).write_text(json.dumps(manifest))
    loads_or_says_why(folder)


@given(header=headers, data=st.binary(max_size=40), length=st.none() | st.integers(0, 2**64 - 1))
@thorough
def test_arrays_are_read_as_the_library_reads_them_or_not_at_all(header: Any, data: bytes, length: int | None) -> None:
    """What the library refuses is refused; what both read is equal in every bit."""
    file = tensors(json.dumps(header).encode(), data, length)
    try:
        ours = trees.read_arrays(io.BufferedReader(io.BytesIO(file)), len(file))  # type: ignore[arg-type]
    except Exception:
        return
    theirs = safetensors.torch.load(file)
    assert same(dict(sorted(theirs.items())), dict(sorted(ours.items())))


@given(tree=any_tree)
@thorough
def test_arrays_that_are_written_are_read_as_the_library_reads_them(tree: dict) -> None:
    data = trees.encode(tree)[trees.TENSORS]
    ours = trees.read_arrays(io.BufferedReader(io.BytesIO(data)), len(data))  # type: ignore[arg-type]
    theirs = safetensors.torch.load(data)
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in ours)


@given(line=st.binary(max_size=60) | json_values.map(lambda x: json.dumps(x).encode() + b"\n"))
@thorough
def test_any_line_of_rows(line: bytes, tmp_path: Path) -> None:
    row = parse_row(line)
    assert row is None or isinstance(row, dict)
    (tmp_path / "rows.jsonl").write_bytes(line)
    assert read_rows(tmp_path / "rows.jsonl") in ([], [row])
