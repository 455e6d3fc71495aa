"""The one package that writes: small files and folders here; rows, checkpoints and locks in modules of their own.

Everything on disk is either appended and flushed (rows) or made elsewhere, synced and renamed (the rest), so a
process killed at any instant, and a machine whose power fails, leave the old version or the new one. Files are for the
owner to write and for the group to read, folders likewise; an umask may take more away. A link that stands where a
file of ours should be is not followed.
"""

import contextlib
import fcntl
import io
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from rlexp.errors import StorageError

FILE_MODE, DIRECTORY_MODE = 0o640, 0o750
MAX_JSON = 2**24  # bytes of a small file; what is larger is none of ours
WRITING = ".writing-"  # begins the name of a file that has not got its own yet

before_operation: Callable[[str, Path], None] | None = None
"""Called before each write, fsync, rename and removal; tests set it to kill or fail at the n-th."""


def operation(name: str, path: Path) -> None:
    if before_operation is not None:
        before_operation(name, path)


@contextlib.contextmanager
def as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        try:
            free = f"; {shutil.disk_usage(path.parent).free} bytes free" if path.parent.exists() else ""
        except OSError:
            free = ""
        raise StorageError(f"cannot write {path}: {error.strerror or error}{free}") from error


def make_directory(path: Path, within: Path | None = None) -> None:
    """Make a directory and those above it, so that they outlast a power cut.

    within: the folder that it must not lead out of, as by a link; raises StorageError where it does.
    """
    with as_storage_error(path):
        operation("mkdir", path)
        if within is not None:
            refuse_outside(path, within)
        for folder in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            sync_directory(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError("is not a directory")


def refuse_outside(path: Path, root: Path) -> None:
    """Raises StorageError where a link leads from `path`, which lies below `root`, to another place."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise StorageError(f"{path}: leads out of {root}, to {real}; nothing is written there: remove the link")


def remove(path: Path) -> None:
    """Remove a file or a tree; nothing happens where there is none."""
    with as_storage_error(path):
        operation("remove", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file: a temporary one beside it, fsync, rename, fsync of the directory."""
    with written_aside(path) as file:
        operation("write", path)
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written piece by piece, as by an encoder of videos: temporary, and beside `path`.

    When the block is left it is synced and takes that name; after an error it is removed, and what lay there stays. An
    OSError in the block becomes a StorageError.
    """
    with as_storage_error(path):
        file, temporary = _begin_aside(path)
        try:
            with file:
                yield file
                file.flush()
                operation("fsync", path)
                os.fsync(file.fileno())
                operation("rename", path)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def _begin_aside(path: Path) -> tuple[IO[bytes], Path]:
    """A new file beside `path`, locked while it is open: `reap_unfinished` of another process leaves it alone."""
    while True:
        temporary = path.with_name(WRITING + secrets.token_hex(8))
        descriptor = new_file(temporary)
        file = open(descriptor, "wb")  # noqa: SIM115
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return file, temporary
        file.close()  # it was taken for a leftover before it was locked


def open_log(path: Path) -> int:
    """An empty file for what a process says; returns its descriptor, which the caller closes."""
    with as_storage_error(path):
        operation("open", path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, FILE_MODE)


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
        return json.loads(read_small(path, MAX_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def read_small(path: Path, limit: int) -> bytes:
    """A whole file. Raises OSError where it is no ordinary one, such as a link or a device, or has more bytes."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(f"has more than {limit} bytes")
        return file.read(limit)


def opened(path: Path) -> io.BufferedReader:
    """An ordinary file, to be read: a link may lead anywhere, a device has no end and a pipe may never have a start."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("is not an ordinary file")
    return open(descriptor, "rb")


def new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)


def write_synced(path: Path, payload: bytes) -> None:
    with open(new_file(path), "wb") as file:
        operation("write", path)
        file.write(payload)
        file.flush()
        operation("fsync", path)
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        operation("fsync", path)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(directory: Path) -> int:
    """Bytes of the files below; what vanishes meanwhile is not counted."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def to_jsonable(value: Any) -> Any:
    """JSON has no NaN or infinity: they become the strings "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
