"""A disk that keeps what was synced and, of all else, whatever chance takes: what is there after the power failed.

    with CrashFS(root) as disk:
        save_tree(root / "a", tree)
    disk.after(operations, chance, elsewhere)      # what may be there if the power failed after so many operations

The calls of the operating system that `rlexp.storage` makes are written down while they happen. POSIX promises of them
no more than this: fsync of a file makes its bytes last, fsync of a folder its entries, and neither the other. So what
was not synced is forgotten by a coin's toss, operation for operation: a file may be named and empty, a name may be gone
whose file was written, of two names one may be new; bytes that were not synced may come as a part, or as zeros.
"""

import builtins
import contextlib
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlexp import storage

REAL_FSYNC = os.fsync


class Written(NamedTuple):
    """The bytes of a file from now on."""

    node: int
    data: bytes


class Named(NamedTuple):
    """In a folder a name gets a node, or none; `source` is the name that the node had, where it was renamed."""

    folder: int
    name: str
    node: int | None
    source: str | None = None


class Synced(NamedTuple):
    """Of a file its bytes, of a folder its entries, as they are now."""

    node: int


Event = Written | Named | Synced


class CrashFS:
    """Writes down what happens below `root` while it is entered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self._nodes: dict[int, int] = {}  # inode to node: an inode is used again, a node is not
        self._descriptors: dict[int, int] = {}
        self._folders: set[int] = set()
        self._start: dict[Path, int] = {}
        self._stack = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> "CrashFS":
        for folder, _, names in os.walk(self.root):  # what was there before is on the disk
            for path in [Path(folder), *(Path(folder) / name for name in names)]:
                self._start[path] = self._node(path)
        self._first = {node: None if path.is_dir() else path.read_bytes() for path, node in self._start.items()}
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "open", "close", "truncate", "write"):
            self._patch(os, name, getattr(self, f"_{name}"))
        self._patch(storage, "open", self._builtin_open, builtins.open)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _patch(self, owner: Any, name: str, replacement: Callable[..., Any], real: Any = None) -> None:
        real = real or getattr(owner, name)
        had = name in vars(owner)

        def called(*arguments: Any, **named: Any) -> Any:
            return replacement(real, *arguments, **named)

        setattr(owner, name, called)
        self._stack.callback(lambda: setattr(owner, name, real) if had else delattr(owner, name))

    # ------------------------------------------------------------------------------------------------- what happens

    def _node(self, path: Path) -> int:
        """The node that lies there now."""
        return self._node_of(os.lstat(path))

    def _node_of(self, status: os.stat_result) -> int:
        if status.st_ino not in self._nodes:
            self._count += 1
            self._nodes[status.st_ino] = self._count
        node = self._nodes[status.st_ino]
        if os.path.stat.S_ISDIR(status.st_mode):
            self._folders.add(node)
        return node

    def _below(self, path: Any, dir_fd: int | None = None) -> Path | None:
        """The path where it is one below the root."""
        if isinstance(path, int):
            return None
        whole = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path if dir_fd is not None else Path(os.fspath(path))
        return whole if whole.is_absolute() and whole.is_relative_to(self.root) else None

    def _mkdir(self, real: Any, path: Any, *rest: Any, **named: Any) -> None:
        real(path, *rest, **named)
        if (whole := self._below(path)) is not None:
            self._name(whole, self._node(whole))

    def _name(self, path: Path, node: int | None, source: str | None = None) -> None:
        self.events.append(Named(self._node(path.parent), path.name, node, source))

    def _rename(self, real: Any, old: Any, new: Any, **named: Any) -> None:
        target = self._below(new)
        if target is not None and target.exists():
            del self._nodes[os.lstat(target).st_ino]
        real(old, new, **named)
        if (whole := self._below(new)) is not None:
            self._name(whole, self._node(whole), source=Path(old).name)

    _replace = _rename

    def _unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        whole = self._below(path, dir_fd)
        if whole is not None and whole.exists():
            del self._nodes[os.lstat(whole).st_ino]
        real(path, dir_fd=dir_fd)
        if whole is not None:
            self._name(whole, None)

    _rmdir = _unlink

    def _open(self, real: Any, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        whole = self._below(path, dir_fd)
        is_new = whole is not None and not whole.exists()
        descriptor: int = real(path, flags, mode, dir_fd=dir_fd)
        if whole is not None:
            self._descriptors[descriptor] = node = self._node(whole)
            if is_new:
                self._name(whole, node)
        return descriptor

    def _close(self, real: Any, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        real(descriptor)

    def _builtin_open(self, real: Any, file: Any, mode: str = "r", **named: Any) -> Any:
        """What is written by it is known when it is synced: everything is, before its descriptor is closed."""
        assert mode in ("rb", "wb")
        assert mode == "rb" or isinstance(file, int), "a file that is written to is opened by os.open"
        return real(file, mode, **named)

    def _fsync(self, real: Any, descriptor: int) -> None:
        status = os.fstat(descriptor)
        node = self._node_of(status)
        if node not in self._folders:
            self._contents(node, descriptor)
        self.events.append(Synced(node))

    def _contents(self, node: int, descriptor: int) -> None:
        with builtins.open(f"/proc/self/fd/{descriptor}", "rb") as file:
            self.events.append(Written(node, file.read()))

    def _write(self, real: Any, descriptor: int, data: Any) -> int:
        written: int = real(descriptor, data)
        if descriptor in self._descriptors:
            self._contents(self._descriptors[descriptor], descriptor)
        return written

    def _truncate(self, real: Any, path: Any, length: int) -> None:
        real(path, length)
        if (whole := self._below(path)) is not None:
            self.events.append(Written(self._node(whole), whole.read_bytes()))

    # --------------------------------------------------------------------------------------------------- what is left

    def after(self, count: int, chance: random.Random, place: Path) -> None:
        """Make at `place` what may be below the root if the power failed after the first `count` events."""
        bytes_of: dict[int, bytes | None] = dict(self._first)
        entries: dict[int, dict[str, int]] = {node: {} for node, data in self._first.items() if data is None}
        for path, node in self._start.items():
            if path != self.root:
                entries[self._start[path.parent]][path.name] = node
        happened = self.events[:count]
        for position, event in enumerate(happened):
            safe = any(
                isinstance(later, Synced) and later.node == (event.folder if isinstance(event, Named) else event.node)
                for later in happened[position + 1 :]
            )
            if isinstance(event, Written):
                before = bytes_of.get(event.node) or b""
                bytes_of[event.node] = event.data if safe else _part(before, event.data, chance)
            elif isinstance(event, Named) and (safe or chance.random() < 0.5):
                _rename_in(entries.setdefault(event.folder, {}), event, entries)
        self._make(self._start[self.root], place, entries, bytes_of)

    def _make(self, node: int, place: Path, entries: dict[int, dict[str, int]], bytes_of: dict[int, Any]) -> None:
        place.mkdir(exist_ok=True)
        for name, child in entries.get(node, {}).items():
            if child in self._folders:
                self._make(child, place / name, entries, bytes_of)
            else:
                (place / name).write_bytes(bytes_of.get(child) or b"")


def _rename_in(folder: dict[str, int], event: Named, entries: dict[int, dict[str, int]]) -> None:
    """No file system puts a folder in the place of another that holds something."""
    if event.node is None:
        folder.pop(event.name, None)
        return
    if event.name in folder and entries.get(folder[event.name]):
        return
    if event.source is not None:
        folder.pop(event.source, None)
    folder[event.name] = event.node


def _part(before: bytes, after: bytes, chance: random.Random) -> bytes:
    """Bytes on their way to the disk: all, none, the first ones, or the right number and zeros for some of them.

    Those that stay as they are, before what is appended or cut off, are not in danger.
    """
    both = zip(before, after, strict=False)
    same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], both)))
    length = chance.randint(same, len(after))
    zeroed = after[:length] + bytes(len(after) - length)
    return chance.choice([before, after, after[:length], zeroed])


@contextlib.contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    folder = parent / "after the crash"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
