"""Checkpoints and rows that somebody made to do harm: every file vouches for the others: no digest gives it away.

Each takes the folder of a good tree of `save_tree` and a path that code hidden in it would make.
"""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

MANIFEST, TREE, TENSORS = "manifest.json", "tree.json", "tensors.safetensors"


def sealed(folder: Path, **said: Any) -> None:
    """Write the manifest that the files as they are now would have."""
    files = {}
    for name in (TREE, TENSORS):
        path = folder / name
        with open(path, "rb") as file:
            files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
    manifest = {"format": 1, "files": files, **said}
    check = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**manifest, "check": check}))


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.canary}",))


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))


def saved_by_torch(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": Payload(canary)}, file)
    return file.getvalue()


def array_of_objects(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    return file.getvalue()


def zip_bomb(canary: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(2**27))
    return file.getvalue()


def tensors(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with that header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(**changed: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}


EIGHT = bytes(8)
TENSOR_FILES: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "torch": saved_by_torch,
    "npy": array_of_objects,
    "zip bomb": zip_bomb,
    "a header of 4 GB": lambda _: struct.pack("<Q", 2**32) + b"{}",
    "a header of 2^63": lambda _: struct.pack("<Q", 2**63) + b"{}",
    "no header": lambda _: b"",
    "a header that is no JSON": lambda _: tensors(b"\xff\xfe"),
    "a header that is a list": lambda _: tensors([1, 2]),
    "the same name twice": lambda _: tensors(
        b'{"0":%s,"0":%s}' % (json.dumps(one()).encode(), json.dumps(one()).encode()), EIGHT
    ),
    "beyond the file": lambda _: tensors({"0": one(shape=[2**40], data_offsets=[0, 2**42])}, EIGHT),
    "a shape that overflows": lambda _: tensors({"0": one(shape=[2**62, 2**62])}, EIGHT),
    "a negative shape": lambda _: tensors({"0": one(shape=[-2])}, EIGHT),
    "overlapping arrays": lambda _: tensors({"0": one(), "1": one()}, EIGHT),
    "a hole": lambda _: tensors({"0": one(data_offsets=[4, 12])}, bytes(12)),
    "an unknown type": lambda _: tensors({"0": one(dtype="PICKLE")}, EIGHT),
    "a name that leads out": lambda canary: tensors({f"../../{canary}": one()}, EIGHT),
    "a million arrays": lambda _: tensors(
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(1_000_000)) + b"}"
    ),
}
"""What stands in the place of the arrays."""

NESTED = 200_000
TREE_FILES: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "torch": saved_by_torch,
    "npy": array_of_objects,
    "nested lists": lambda _: b"[" * NESTED + b"]" * NESTED,
    "nested entries": lambda _: b'{"l":[' * NESTED + b"]}" * NESTED,
    "ten million values": lambda _: b'{"d":[["x",{"l":[' + b"0," * 10_000_000 + b"0]}]]}",
    "five million lists": lambda _: b'{"d":[["x",{"l":[' + b"[]," * 5_000_000 + b"0]}]]}",
    "an array that nothing names": lambda _: b'{"d":[]}',
    "a long number": lambda _: b'{"d":[["x",' + b"9" * 1_000_000 + b"]]}",
    "a long text": lambda _: b'{"d":[["x","' + "\N{SNAKE}".encode() * 8_000_000 + b'"]]}',
    "one array a thousand times": lambda _: json.dumps({"d": [[k, {"a": "0"}] for k in range(1000)]}).encode(),
    "an array that is not there": lambda _: b'{"d":[["x",{"a":"99"}]]}',
    "an unknown kind": lambda canary: json.dumps({"d": [["x", {"py/reduce": f"touch {canary}"}]]}).encode(),
    "two kinds": lambda _: b'{"d":[],"l":[]}',
    "a kind twice": lambda _: b'{"d":[],"d":[["x",1]]}',
    "a key twice": lambda _: b'{"d":[["x",1],["x",2]]}',
    "a key that is a list": lambda _: b'{"d":[[[1],2]]}',
    "an entry of three": lambda _: b'{"d":[[1,2,3]]}',
    "no tree": lambda _: b"17",
    "nothing": lambda _: b"",
}
"""What stands in the place of the tree, beside one array "0" of two numbers."""

MANIFESTS: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "nested lists": lambda _: b"[" * 60_000,
    "names that lead out": lambda canary: json.dumps(
        {"format": 1, "files": {f"../../{canary}": {"sha256": "0", "bytes": 1}}}
    ).encode(),
    "sizes that are no sizes": lambda _: json.dumps(
        {"format": 1, "files": {name: {"sha256": "0", "bytes": "many"} for name in (TREE, TENSORS)}}
    ).encode(),
    "64 MB": lambda _: b" " * 2**26,
}

PLACES: dict[str, Callable[[Path], None]] = {
    "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to another file": lambda path: path.symlink_to("/etc/passwd"),
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
}
"""What is put where a file should be."""


def good(folder: Path) -> None:
    """A tree with one array "0"."""
    folder.mkdir(parents=True)
    (folder / TREE).write_bytes(b'{"d":[["x",{"a":"0"}]]}')
    (folder / TENSORS).write_bytes(tensors({"0": one()}, EIGHT))
    sealed(folder)


def hostile(folder: Path, canary: Path) -> dict[str, Path]:
    """Every checkpoint of the corpus, each in a folder of its own, by what is wrong with it."""
    made = {}

    def make(kind: str, name: str) -> Path:
        path = folder / f"{len(made):03}"
        good(path)
        made[f"{kind}: {name}"] = path
        return path

    for of, kinds in ((TENSORS, TENSOR_FILES), (TREE, TREE_FILES), (MANIFEST, MANIFESTS)):
        for name, data in kinds.items():
            path = make(of, name)
            (path / of).write_bytes(data(canary))
            if of != MANIFEST:
                sealed(path)
        path = make(of, "a link to a good file")
        (path / of).rename(folder / f"{path.name} {of}")
        (path / of).symlink_to(folder / f"{path.name} {of}")
        for name, put in PLACES.items():
            path = make(of, name)
            (path / of).unlink()
            put(path / of)
    return made
