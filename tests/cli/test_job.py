"""What a job of a sweep prints: without secrets, through a stream that does what any does."""

import io
import logging

import pytest

from rlexp.cli.job import LONGEST_LINE, Redacting


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    monkeypatch.setenv("MY_TOKEN", "abcdefgh-12345")
    return io.TextIOWrapper(io.BytesIO(), encoding="latin-1")


def written(below: io.TextIOWrapper) -> bytes:
    below.flush()
    return below.buffer.getvalue()


def test_a_secret_in_pieces_of_a_line(below: io.TextIOWrapper) -> None:
    stream = Redacting(below)
    print("abcdefgh", "12345", sep="-", end=" ", file=stream)
    assert written(below) == b""
    print("api_key=", "qwertz", sep="", file=stream)
    assert written(below) == b"<MY_TOKEN> api_key=<API_KEY>\n"
    stream.writelines(["abcdefgh", "-12345\n", "ab"])
    logging.StreamHandler(stream).emit(logging.makeLogRecord({"msg": "c"}))
    assert written(below).splitlines()[1:] == [b"<MY_TOKEN>", b"abc"]


def test_a_line_without_end_is_written_when_flushed(below: io.TextIOWrapper) -> None:
    print("1 of 2: abcdefgh-12345", end="", flush=True, file=Redacting(below))
    assert written(below) == b"1 of 2: <MY_TOKEN>"


def test_a_line_without_end_does_not_fill_the_memory(below: io.TextIOWrapper) -> None:
    stream = Redacting(below)
    for _ in range(LONGEST_LINE + 1):
        stream.write(".")
    assert written(below) == b"." * (LONGEST_LINE + 1)


def test_what_else_a_stream_has(below: io.TextIOWrapper) -> None:
    stream = Redacting(below)
    assert (stream.encoding, stream.errors, stream.isatty(), stream.closed) == ("latin-1", "strict", False, False)
    print("first ", end="", file=stream)
    assert stream.buffer is below.buffer
    below.flush()
    stream.buffer.write(b"second\n")
    stream.reconfigure(encoding="utf-8")
    print("ü", file=stream)
    assert written(below) == "first second\nü\n".encode()
    with pytest.raises(OSError, match="fileno"):
        stream.fileno()
    with pytest.raises(AttributeError, match="nothing"):
        _ = stream.nothing
    print("end", end="", file=stream)
    assert stream.detach().getvalue().endswith(b"end")
