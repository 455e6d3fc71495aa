"""Rows, small files, locks: what is on the disk is what was written, or it is refused."""

import errno
import json
import math
import os
import signal
from pathlib import Path

import pytest

from rlexp import storage
from rlexp.errors import StorageError
from rlexp.storage.checkpoints import reap_unfinished
from rlexp.storage.locks import locked
from rlexp.storage.rows import RowLog, parse_row, read_rows
from tests.disk import fail_at, in_child, kill_at, operations_of

ROWS = [{"env_steps": 10 * k, "x": k / 7, "name": 'a "quoted" text, with ,"crc":1}'} for k in range(4)]


def logged(path: Path, rows=ROWS) -> RowLog:
    log = RowLog(path)
    for row in rows:
        log.append(row)
    return log


def numbered(rows) -> list[dict]:
    return [{"seq": k, **row} for k, row in enumerate(rows)]


# --------------------------------------------------------------------------------------------------------------- rows


def test_rows_come_back(tmp_path) -> None:
    logged(tmp_path / "rows.jsonl").close()
    assert read_rows(tmp_path / "rows.jsonl") == numbered(ROWS)
    assert read_rows(tmp_path / "none.jsonl") == []


def test_each_row_is_readable_before_the_next(tmp_path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    for k, row in enumerate(ROWS):
        log.append(row)
        assert len(read_rows(tmp_path / "rows.jsonl")) == k + 1


def test_each_line_is_strict_json(tmp_path) -> None:
    logged(tmp_path / "rows.jsonl", [{"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": math.nan}}])

    def refuse(name):
        raise AssertionError(name)

    row = json.loads((tmp_path / "rows.jsonl").read_text(), parse_constant=refuse)
    assert (row["a"], row["b"], row["c"]) == ("NaN", ["Infinity", "-Infinity", 1.5], {"d": "NaN"})


@pytest.mark.parametrize("kept", range(1, 40, 7))
def test_a_torn_last_line_is_left_out(tmp_path, kept: int) -> None:
    path = tmp_path / "rows.jsonl"
    logged(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:kept])
    assert read_rows(path) == numbered(ROWS)[:3]


def test_every_flipped_bit_ends_the_good_rows(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    logged(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(len(lines[1])):
        for bit in range(8):
            altered = bytearray(lines[1])
            altered[position] ^= 1 << bit
            assert parse_row(bytes(altered)) is None, (position, bit)
        path.write_bytes(lines[0] + altered + lines[2] + lines[3])
        assert read_rows(path) == numbered(ROWS)[:1], position


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b'{"seq":0}\n', b'{"seq":0,"crc":x}\n', b"\xff\xfe\n"])
def test_foreign_lines_are_no_rows(line: bytes) -> None:
    assert parse_row(line) is None


def test_cut_keeps_the_first_rows_and_goes_on_numbering(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = logged(path)
    whole.close()
    expected = path.read_bytes()
    with open(path, "ab") as file:
        file.write(b'{"seq":4,"torn')
    log = RowLog(path)
    log.cut(2)
    assert read_rows(path) == numbered(ROWS)[:2]
    for row in ROWS[2:]:
        log.append(row)
    assert path.read_bytes() == expected
    log.cut(0)
    assert path.read_bytes() == b""
    log.append(ROWS[0])
    assert read_rows(path) == numbered(ROWS[:1])


def test_cut_refuses_what_is_damaged_or_missing_and_leaves_it(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    log = logged(path)
    with pytest.raises(StorageError, match="row 4"):
        log.cut(5)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"env_steps":10,', b'"env_steps":11,'))
    with pytest.raises(StorageError, match="row 1"):
        log.cut(3)
    assert len(path.read_bytes()) == len(data)


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch) -> None:
    log = logged(tmp_path / "rows.jsonl")
    monkeypatch.setattr(storage, "before_operation", fail_at(1, errno.ENOSPC))
    with pytest.raises(StorageError, match=r"rows\.jsonl: No space left"):
        log.append(ROWS[0])


# --------------------------------------------------------------------------------------------------------------- files


def test_write_atomic_and_json(tmp_path) -> None:
    path = tmp_path / "a.json"
    storage.write_atomic(path, b"old")
    storage.write_json(path, {"x": math.inf, 3: (1, None, True)})
    assert storage.read_json(path) == {"x": "Infinity", "3": [1, None, True]}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_read_json_refuses(tmp_path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"a\.json"):
        storage.read_json(tmp_path / "a.json")


def test_write_atomic_leaves_the_old_or_the_new_version_at_every_failure(tmp_path) -> None:
    path = tmp_path / "a.txt"
    count = operations_of(lambda: storage.write_atomic(path, "old"))
    assert count >= 4  # write, fsync, rename, fsync
    for n in range(1, count + 1):
        path.write_text("old")
        storage.before_operation = fail_at(n, errno.EIO)
        with pytest.raises(StorageError, match=r"a\.txt"):
            storage.write_atomic(path, "new")
        assert path.read_text() in ("old", "new")
        assert os.listdir(tmp_path) == ["a.txt"]


def test_write_atomic_leaves_the_old_or_the_new_version_at_every_kill(tmp_path) -> None:
    path = tmp_path / "a.txt"
    count = operations_of(lambda: storage.write_atomic(path, "old"))
    for n in range(1, count + 1):
        path.write_text("old")
        assert in_child(lambda n=n: kill_at(n), lambda: storage.write_atomic(path, "new")) == 9
        assert path.read_text() in ("old", "new")


def encode(path: Path, pause=lambda: None) -> None:
    """As a library does that writes piece by piece."""
    with storage.written_aside(path) as file:
        file.write(b"ne")
        file.flush()
        pause()
        file.write(b"w")


def test_what_is_written_piece_by_piece_is_seen_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    encode(path, lambda: (not path.exists()) or pytest.fail("half a file is seen"))
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["a.mp4"])
    count = operations_of(lambda: encode(path))
    assert count >= 3
    for n in range(1, count + 1):
        path.write_text("old")
        assert in_child(lambda n=n: kill_at(n), lambda: encode(path)) == 9
        assert path.read_text() in ("old", "new")
        storage.before_operation = fail_at(n, errno.ENOSPC)
        with pytest.raises(StorageError, match=r"a\.mp4"):
            encode(path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path, error) -> None:
    (tmp_path / "a.mp4").write_text("old")

    def fail():
        raise error("the encoder")

    with pytest.raises(StorageError if error is OSError else error, match="the encoder"):
        encode(tmp_path / "a.mp4", fail)
    assert ((tmp_path / "a.mp4").read_text(), os.listdir(tmp_path)) == ("old", ["a.mp4"])


def test_directories_copies_and_removal(tmp_path) -> None:
    storage.make_directory(tmp_path / "a" / "b")
    storage.make_directory(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "x").write_bytes(b"1")
    (tmp_path / "a" / "y").write_bytes(b"2")
    storage.copy_tree(tmp_path / "a", tmp_path / "c")
    storage.copy_tree(tmp_path / "none", tmp_path / "d")
    assert ((tmp_path / "c/b/x").read_bytes(), (tmp_path / "c/y").read_bytes()) == (b"1", b"2")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("link", "c", "none", "a/y"):
        storage.remove(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert (tmp_path / "a/b/x").exists()  # what a link points to stays


def test_a_directory_where_none_can_be_is_a_storage_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        storage.make_directory(tmp_path / "file" / "a")


# --------------------------------------------------------------------------------------------------------------- lock


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path, until it is killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with locked(tmp_path):
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"x"
    yield pid
    for descriptor in (read, write):
        os.close(descriptor)
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_held_directory_is_refused_at_once_and_its_owner_named(tmp_path, holder: int) -> None:
    with (
        pytest.raises(StorageError, match=rf"in use by process {holder} on ") as caught,
        locked(tmp_path),
    ):
        pytest.fail("the lock was given twice")
    assert "\n" not in str(caught.value)


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder: int) -> None:
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_the_lock_is_given_back_also_after_an_error(tmp_path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path), pytest.raises(StorageError), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path) -> None:
    (tmp_path / "elsewhere").write_text("keep")
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), locked(tmp_path):
        pass
    assert (tmp_path / "elsewhere").read_text() == "keep"


def test_files_of_a_killed_writer_are_removed_and_one_at_work_is_left_alone(tmp_path) -> None:
    storage.write_json(tmp_path / "kept.json", {})
    assert in_child(lambda: kill_at(2), lambda: storage.write_json(tmp_path / "other.json", {})) == 9
    (left,) = tmp_path.glob(f"{storage.WRITING}*")
    with storage.written_aside(tmp_path / "mine.json") as file:
        file.write(b"{}")
        reap_unfinished(tmp_path)
        assert not left.exists()
    reap_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "mine.json"]
