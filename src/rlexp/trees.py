"""Checkpoints as bytes and back: arrays in a safetensors file, the rest as JSON, and a manifest with a digest of each.

No pickle: what is read is taken apart by parsers of numbers and text, and runs no code. Whoever wrote the files may
mean harm, with digests that fit: sizes and numbers of values have bounds, and an array is handed out once, so that
reading takes little more memory than the files have bytes. Nothing here touches the disk.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # checkpoints alone need torch: who reads rows or small files does not wait seconds for its import
    import torch

FORMAT = 1
MANIFEST, TREE, TENSORS = "manifest.json", "tree.json", "tensors.safetensors"
MAX_BYTES = {MANIFEST: 2**16, TREE: 2**24}
MAX_HEADER = 2**22  # bytes that name the arrays, some 40,000 of them
MAX_VALUES = 1_000_000  # plain values; ten thousand environments have a fifth of that


DTYPES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
}
"""The file's names of types to torch's."""


class Entry(NamedTuple):
    """What a manifest says of a file."""

    sha256: str
    size: int


def encode(tree: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a tree by their names, the manifest last.

    Raises TypeError for what is no plain value and no array, ValueError where it could not be read again.
    """
    import safetensors.torch

    arrays: dict[str, torch.Tensor] = {}
    plain = json.dumps(_split(tree, arrays), allow_nan=False).encode()
    files = {TREE: plain, TENSORS: safetensors.torch.save(arrays)}
    check_tree_size(plain)
    check_header_size(files[TENSORS][:8])
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    said = {"format": FORMAT, "files": entries}
    return {**files, MANIFEST: json.dumps({**said, "check": _check(said)}, indent=2).encode()}


def decode(plain: bytes, arrays: "dict[str, torch.Tensor]") -> dict[str, Any]:
    """The tree of its JSON and its arrays, which are taken out of `arrays`, each once.

    Raises Exception of many kinds for what `encode` did not write.
    """
    check_tree_size(plain)

    def revive(pairs: list[tuple[str, Any]]) -> Any:
        ((kind, content),) = pairs
        if kind == "d":
            made = {_key(key): item for key, item in content}
            if len(made) != len(content):
                raise ValueError("a key stands twice")
            return made
        if kind == "l" and isinstance(content, list):
            return content
        if kind == "f":
            return float(content)
        if kind == "a":
            return arrays.pop(content).numpy()
        if kind == "t":
            return arrays.pop(content)
        raise ValueError(f"unknown kind of value {kind!r}")

    tree = json.loads(plain, object_pairs_hook=revive)
    if not isinstance(tree, dict) or arrays:
        raise ValueError("arrays are left over" if arrays else "is no tree")
    return tree


def read_manifest(data: bytes) -> dict[str, Entry]:
    """What the files must be. Raises ValueError for a manifest that is damaged or of another format."""
    manifest = _parse_manifest(data)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"checkpoint format {manifest.get('format')}, this version of rlexp reads format {FORMAT}")
    if not _intact(manifest) and set(manifest) != {"format", "files"}:  # one of before there was a check
        raise ValueError("damaged, its manifest is not what was written")
    entries = {}
    for name in (TREE, TENSORS):
        try:
            sha256, size = manifest["files"][name]["sha256"], manifest["files"][name]["bytes"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged, its manifest has no word on {name}") from error
        if not isinstance(sha256, str) or not isinstance(size, int) or size > MAX_BYTES.get(name, size):
            raise ValueError(f"damaged, its manifest says of {name} what cannot be")
        entries[name] = Entry(sha256, size)
    return entries


def newer_format(data: bytes) -> int | None:
    """The format of a manifest that a later version of rlexp wrote and nothing damaged, else None."""
    try:
        manifest = _parse_manifest(data)
    except ValueError:
        return None
    found = manifest.get("format")
    return found if isinstance(found, int) and found > FORMAT and _intact(manifest) else None


def _parse_manifest(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged, its manifest is not JSON ({error})") from error
    return manifest if isinstance(manifest, dict) else {}


def _intact(manifest: Mapping[str, Any]) -> bool:
    return manifest.get("check") == _check({key: value for key, value in manifest.items() if key != "check"})


def _check(said: Mapping[str, Any]) -> str:
    """Of the manifest's own words: a flipped bit in the number of its format must not pass for a later version."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_arrays(file: io.BufferedReader, size: int) -> "dict[str, torch.Tensor]":
    """The arrays of a safetensors file of `size` bytes, in memory of their own and no more than that.

    The library would map the file, whose pages count like memory, and end the process where it shrinks meanwhile.
    Raises Exception of many kinds for what is no such file.
    """
    import torch

    first = file.read(8)
    start = 8 + check_header_size(first)
    header = json.loads(file.read(start - 8), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    arrays: dict[str, torch.Tensor] = {}
    place = start
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        dtype, shape, (begin, end) = getattr(torch, DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        count = math.prod(shape)
        if not all(type(n) is int and n >= 0 for n in shape) or start + begin != place or start + end > size:
            raise ValueError(f"array {name!r} is not where it should be")
        if end - begin != count * dtype.itemsize:
            raise ValueError(f"array {name!r} has another size than its shape")
        values = torch.empty(count, dtype=dtype)
        if count and file.readinto(values.view(torch.uint8).numpy().data) != end - begin:
            raise ValueError(f"array {name!r} is cut short")
        arrays[name], place = values.view(shape), start + end
    if place != size:
        raise ValueError("something follows the arrays")
    return arrays


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def check_header_size(first: bytes) -> int:
    """Of a safetensors file that begins with these eight bytes; raises ValueError where it names too many arrays."""
    size = int.from_bytes(first[:8], "little")
    if len(first) < 8 or size > MAX_HEADER:
        raise ValueError(f"its arrays are too many, or named by more than {MAX_HEADER} bytes")
    return size


def check_tree_size(plain: bytes) -> None:
    if len(plain) > MAX_BYTES[TREE] or sum(plain.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} plain values, or {MAX_BYTES[TREE]} bytes of them; use arrays")


def _split(value: Any, arrays: "dict[str, torch.Tensor]") -> Any:
    """The tree with each array replaced by a reference into `arrays`."""
    import torch

    if isinstance(value, dict):
        return {"d": [[_key(key), _split(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"l": [_split(item, arrays) for item in value]}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        name = str(len(arrays))
        tensor = torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value.detach()
        arrays[name] = tensor.cpu().contiguous().clone()
        return {"a" if isinstance(value, np.ndarray) else "t": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": repr(float(value))}  # a NumPy number writes its type
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds plain values and arrays, not {type(value).__name__}")


def _key(key: Any) -> Any:
    if not isinstance(key, (str, int)):
        raise TypeError(f"a key of a checkpoint is text or a whole number, not {type(key).__name__}")
    return key
