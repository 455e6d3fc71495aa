"""The one module that writes: rows, checkpoints, small files, locks.

Everything on disk is either appended and flushed (rows) or made elsewhere, synced and renamed (the rest), so a
process killed at any instant leaves the old version or the new one. A checkpoint is a tree of plain values and arrays:
arrays in a safetensors file, the rest as JSON, and a manifest with a digest of each. No pickle: loading runs no code.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from rlexp.errors import StorageError

if TYPE_CHECKING:  # checkpoints alone need torch: who reads rows or small files does not wait seconds for its import
    import torch

FORMAT = 1
ASIDE = ".replaced-"
WRITING = ".writing-"

before_operation: Callable[[str, Path], None] | None = None
"""Called before each write, fsync, rename and removal; tests set it to kill or fail at the n-th."""


def _operation(name: str, path: Path) -> None:
    if before_operation is not None:
        before_operation(name, path)


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        try:
            free = f"; {shutil.disk_usage(path.parent).free} bytes free" if path.parent.exists() else ""
        except OSError:
            free = ""
        raise StorageError(f"cannot write {path}: {error.strerror or error}{free}") from error


def make_directory(path: Path) -> None:
    with _as_storage_error(path):
        _operation("mkdir", path)
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a tree; nothing happens where there is none."""
    with _as_storage_error(path):
        _operation("remove", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file: a temporary one beside it, fsync, rename, fsync of the directory."""
    with written_aside(path) as file:
        _operation("write", path)
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written piece by piece, as by an encoder of videos: temporary, and beside `path`.

    When the block is left it is synced and takes that name; after an error it is removed, and what lay there stays. An
    OSError in the block becomes a StorageError.
    """
    with _as_storage_error(path):
        file, temporary = _begin_aside(path)
        try:
            with file:
                yield file
                file.flush()
                _operation("fsync", path)
                os.fsync(file.fileno())
                _operation("rename", path)
                os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        _sync_directory(path.parent)


def _begin_aside(path: Path) -> tuple[IO[bytes], str]:
    """A new file beside `path`, locked while it is open: `reap_unfinished` of another process leaves it alone."""
    while True:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{WRITING}{path.name}.", dir=path.parent)
        file = open(descriptor, "wb")  # noqa: SIM115
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            os.chmod(temporary, 0o640)
            return file, temporary
        file.close()  # it was taken for a leftover before it was locked


def open_log(path: Path) -> int:
    """An empty file for what a process says; returns its descriptor, which the caller closes."""
    with _as_storage_error(path):
        _operation("open", path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)


def copy_tree(source: Path, destination: Path) -> None:
    """Copy a file or the files of a tree, each atomically. Nothing happens where there is no source."""
    if source.is_dir():
        make_directory(destination)
        for child in sorted(source.iterdir()):
            copy_tree(child, destination / child.name)
    elif source.exists():
        write_atomic(destination, source.read_bytes())


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(to_jsonable(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises StorageError where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _write_synced(path: Path, payload: bytes) -> None:
    with open(path, "wb") as file:
        _operation("write", path)
        file.write(payload)
        file.flush()
        _operation("fsync", path)
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _operation("fsync", path)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_jsonable(value: Any) -> Any:
    """JSON has no NaN or infinity: they become the strings "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


# --------------------------------------------------------------------------------------------------------------- rows


class RowLog:
    """An append-only file of JSON objects, one a line, each with its number and a checksum.

    Each row is on the disk (fsync) before the next is accepted. 0.1 ms a row on a local disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_seq = 0
        with _as_storage_error(path):
            _operation("open", path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def append(self, row: dict[str, Any]) -> None:
        line = _row_line({"seq": self.next_seq, **row})
        with _as_storage_error(self.path):
            _operation("write", self.path)
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            _operation("fsync", self.path)
            os.fsync(self._descriptor)
        self.next_seq += 1

    def cut(self, num_rows: int) -> None:
        """Keep the first `num_rows` rows: what was logged after a checkpoint is made again, equal, by the resumed run.

        Raises StorageError where the file holds fewer good rows.
        """
        with _as_storage_error(self.path), open(self.path, "rb") as file:
            for number in range(num_rows):
                if parse_row(file.readline()) is None:
                    raise StorageError(f"{self.path}: row {number} of {num_rows} before the checkpoint is damaged")
            _operation("truncate", self.path)
            os.truncate(self.path, file.tell())
            os.fsync(self._descriptor)
        self.next_seq = num_rows

    def close(self) -> None:
        os.close(self._descriptor)


def _row_line(row: dict[str, Any]) -> bytes:
    body = json.dumps(to_jsonable(row), allow_nan=False, separators=(",", ":"))
    return f'{body[:-1]},"crc":{zlib.crc32(body.encode())}}}\n'.encode()


def parse_row(line: bytes) -> dict[str, Any] | None:
    """One line of a row file without its checksum, or None where the line is torn or altered."""
    body, separator, tail = line.rpartition(b',"crc":')
    if not separator or not tail.endswith(b"}\n"):
        return None
    try:
        if zlib.crc32(body + b"}") != int(tail[:-2]):
            return None
        return cast(dict[str, Any], json.loads(body + b"}"))
    except ValueError:
        return None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All good rows up to the first damaged one; an empty list where there is no file."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    with open(path, "rb") as file:
        for line in file:
            row = parse_row(line)
            if row is None:
                break
            rows.append(row)
    return rows


# -------------------------------------------------------------------------------------------------------- checkpoints


def save_tree(directory: Path, tree: dict[str, Any]) -> str:
    """Write nested dicts and lists of plain values, NumPy arrays and tensors as a new directory, all or nothing.

    Returns the SHA-256 of the manifest. An existing directory of that name is replaced: a directory cannot be renamed
    over another, so the old one is set aside first, where `load_tree` still finds it.
    """
    import safetensors.torch

    arrays: dict[str, torch.Tensor] = {}
    files = {
        "tree.json": json.dumps(_split(tree, arrays), allow_nan=False).encode(),
        "tensors.safetensors": safetensors.torch.save(arrays),
    }
    digests = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    manifest = json.dumps({"format": FORMAT, "files": digests}, indent=2).encode()
    with _as_storage_error(directory):
        _operation("mkdir", directory)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=directory.parent))
        try:
            os.chmod(temporary, 0o750)
            for name, data in {**files, "manifest.json": manifest}.items():
                _write_synced(temporary / name, data)
            _sync_directory(temporary)
            if directory.exists():
                remove(_set_aside(directory))
                _rename(directory, _set_aside(directory))
            _rename(temporary, directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if not directory.exists() and _set_aside(directory).exists():
                os.rename(_set_aside(directory), directory)
            raise
        _sync_directory(directory.parent)
        remove(_set_aside(directory))
    return hashlib.sha256(manifest).hexdigest()


def load_tree(directory: Path) -> dict[str, Any]:
    """Read what `save_tree` wrote; arrays come back as NumPy arrays or tensors, as they were.

    Digests are checked before anything is parsed. Raises StorageError, one line, for whatever is damaged or foreign.
    """
    import safetensors.torch

    directory = _present(directory)
    manifest = read_json(directory / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise StorageError(f"{directory}: checkpoint format {found}, this version of rlexp reads format {FORMAT}")
    try:
        expected = {name: manifest["files"][name] for name in ("tree.json", "tensors.safetensors")}
        data = {}
        for name, entry in expected.items():
            if (directory / name).stat().st_size != entry["bytes"]:
                raise StorageError(f"{directory / name}: damaged, its size is not the one in the manifest")
            data[name] = (directory / name).read_bytes()
            if hashlib.sha256(data[name]).hexdigest() != entry["sha256"]:
                raise StorageError(f"{directory / name}: damaged, its digest is not the one in the manifest")
        arrays = safetensors.torch.load(data["tensors.safetensors"])
        return cast(dict[str, Any], _join(json.loads(data["tree.json"]), arrays))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise StorageError(f"{directory}: damaged checkpoint ({type(error).__name__}: {error})") from error


def tree_digest(directory: Path) -> str:
    """What `save_tree` returned: the SHA-256 of the manifest, and so of all that the tree holds."""
    try:
        return hashlib.sha256((_present(directory) / "manifest.json").read_bytes()).hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {directory / 'manifest.json'}: {error}") from error


def reap_unfinished(directory: Path) -> None:
    """Remove what a killed write or save left behind, and put back what it had set aside."""
    for leftover in directory.glob(f"{WRITING}*"):
        _remove_unless_written(leftover)
    for leftover in directory.glob(".saving-*"):
        remove(leftover)
    for old in directory.glob(f"{ASIDE}*"):
        replaced = directory / old.name.removeprefix(ASIDE)
        if replaced.exists():
            remove(old)
        else:
            with _as_storage_error(replaced):
                _rename(old, replaced)


def _remove_unless_written(file: Path) -> None:
    """The kernel drops a writer's lock when it ends, however it ends; no clock is asked."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # it has got its name
        return
    try:
        if _locks(descriptor, fcntl.LOCK_EX, 0.0):
            remove(file)
    finally:
        os.close(descriptor)


def _set_aside(directory: Path) -> Path:
    return directory.with_name(ASIDE + directory.name)


def _present(directory: Path) -> Path:
    """Where a tree lies now: a save that was killed between its renames left it set aside."""
    aside = _set_aside(directory)
    return aside if not directory.exists() and aside.exists() else directory


def _rename(source: Path, destination: Path) -> None:
    _operation("rename", destination)
    os.rename(source, destination)


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


def _join(value: Any, arrays: "dict[str, torch.Tensor]") -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "d":
        return {_key(key): _join(item, arrays) for key, item in content}
    if kind == "l":
        return [_join(item, arrays) for item in content]
    if kind == "f":
        return float(content)
    return arrays[content].numpy().copy() if kind == "a" else arrays[content]


def _key(key: Any) -> Any:
    if not isinstance(key, (str, int)):
        raise TypeError(f"a key of a checkpoint is text or a whole number, not {type(key).__name__}")
    return key


# --------------------------------------------------------------------------------------------------------------- lock


GLANCE = 0.2  # seconds that a lock is tried for: `is_locked` of another process holds it for some microseconds


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process. The kernel drops the lock when the process ends, however it ends.

    Raises StorageError, with the owner's name, where another process holds it.
    """
    path = directory / "lock"
    with _as_storage_error(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        if not _locks(descriptor, fcntl.LOCK_EX, GLANCE):
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise StorageError(f"{directory} is in use by {owner}; wait for it, or choose another seed")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(directory: Path) -> bool:
    """Whether a process holds a directory now. Makes nothing, and hinders nobody who wants to hold it."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # nobody ever held it
        return False
    try:
        return not _locks(descriptor, fcntl.LOCK_SH, 0.0)
    finally:
        os.close(descriptor)


def _locks(descriptor: int, kind: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
