"""Trees of values and arrays as directories, whole or not at all, and what killed writers leave behind."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlexp import trees
from rlexp.errors import StorageError
from rlexp.storage import (
    DIRECTORY_MODE,
    WRITING,
    as_storage_error,
    opened,
    operation,
    read_small,
    remove,
    sync_directory,
    write_synced,
)
from rlexp.storage.locks import take

ASIDE, SAVING = ".replaced-", ".saving-"


def save_tree(directory: Path, tree: Mapping[str, Any]) -> str:
    """Write nested dicts and lists of plain values, NumPy arrays and tensors as a new directory, all or nothing.

    Returns the SHA-256 of the manifest. An existing directory of that name is replaced: a directory cannot be renamed
    over another, so the old one is set aside first, where `load_tree` still finds it.
    """
    try:
        files = trees.encode(tree)
    except ValueError as error:
        raise StorageError(f"cannot write {directory}: {error}") from error
    with as_storage_error(directory):
        operation("mkdir", directory)
        temporary = directory.with_name(SAVING + secrets.token_hex(8))
        temporary.mkdir(mode=DIRECTORY_MODE)
        try:
            for name, data in files.items():
                write_synced(temporary / name, data)
            sync_directory(temporary)
            if directory.exists():
                remove(_set_aside(directory))
                _rename(directory, _set_aside(directory))
            _rename(temporary, directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if not directory.exists() and _set_aside(directory).exists():
                os.rename(_set_aside(directory), directory)
            raise
        sync_directory(directory.parent)
        remove(_set_aside(directory))
    return hashlib.sha256(files[trees.MANIFEST]).hexdigest()


def load_tree(directory: Path) -> dict[str, Any]:
    """Read what `save_tree` wrote; arrays come back as NumPy arrays or tensors, as they were.

    Digests are checked before anything is parsed. Raises StorageError, one line, for whatever is damaged or foreign.
    """
    directory = _present(directory)
    try:
        expected = trees.read_manifest(_manifest(directory))
        for name, entry in expected.items():
            _check_file(directory / name, entry)
        with opened(directory / trees.TENSORS) as file:
            arrays = trees.read_arrays(file, expected[trees.TENSORS].size)
        return trees.decode(read_small(directory / trees.TREE, trees.MAX_BYTES[trees.TREE]), arrays)
    except StorageError:
        raise
    except Exception as error:  # the bytes may be anybody's: what a parser says of them is theirs, too
        said = str(error) if type(error) is ValueError else f"damaged checkpoint ({type(error).__name__}: {error})"
        raise StorageError(" ".join(f"{directory}: {said}".split())) from error


def _check_file(path: Path, entry: trees.Entry) -> None:
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size != entry.size:
            raise StorageError(f"{path}: damaged, its size is not the one in the manifest")
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise StorageError(f"{path}: damaged, its digest is not the one in the manifest")


def is_newer(directory: Path) -> bool:
    """Whether a later version of rlexp wrote this tree, and it is not merely damaged."""
    try:
        return trees.newer_format(_manifest(_present(directory))) is not None
    except StorageError:
        return False


def tree_digest(directory: Path) -> str:
    """What `save_tree` returned: the SHA-256 of the manifest, and so of all that the tree holds."""
    return hashlib.sha256(_manifest(_present(directory))).hexdigest()


def _manifest(directory: Path) -> bytes:
    path = directory / trees.MANIFEST
    try:
        return read_small(path, trees.MAX_BYTES[trees.MANIFEST])
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _set_aside(directory: Path) -> Path:
    return directory.with_name(ASIDE + directory.name)


def _present(directory: Path) -> Path:
    """Where a tree lies now: a save that was killed between its renames left it set aside."""
    aside = _set_aside(directory)
    return aside if not directory.exists() and aside.exists() else directory


def _rename(source: Path, destination: Path) -> None:
    operation("rename", destination)
    os.rename(source, destination)


def reap_unfinished(directory: Path) -> None:
    """Remove what a killed write or save left behind, and put back what it had set aside."""
    with as_storage_error(directory):
        for leftover in directory.glob(f"{WRITING}*"):
            _remove_unless_written(leftover)
        for leftover in directory.glob(f"{SAVING}*"):
            remove(leftover)
        for old in directory.glob(f"{ASIDE}*"):
            replaced = directory / old.name.removeprefix(ASIDE)
            if replaced.exists():
                remove(old)
            else:
                _rename(old, replaced)


def _remove_unless_written(file: Path) -> None:
    """The kernel drops a writer's lock when it ends, however it ends; no clock is asked."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # it has got its name
        return
    try:
        if take(descriptor, fcntl.LOCK_EX, 0.0):
            remove(file)
    finally:
        os.close(descriptor)
