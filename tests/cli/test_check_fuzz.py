"""`rlexp-check` and any words, any files: an answer in one line, nothing run, nothing written, memory within bounds."""

import contextlib
import io
import json
import re
import resource
import string
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_faults import BASES, HOSTILE_VALUES, flatten
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlexp.cli.check import command
from rlexp.cli.common import guarded
from rlexp.errors import ConfigError
from rlexp.experiment import spaces
from rlexp.experiment.compose import compose_jobs, conf_dir
from tests.faults.audit import watched

pytestmark = pytest.mark.slow

SECONDS = 10.0  # that one answer may take on a busy machine
MEMORY = 400_000  # kB that all answers together may take
FEW = settings(max_examples=400, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1500, suppress_health_check=list(HealthCheck))

KEYS = sorted({path for base in BASES.values() for path, _ in flatten(compose_jobs(base)[0].config)} - {"plugins"})
GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())
FILES = sorted(path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml"))

texts = st.text(max_size=12) | st.text(
    "[]{}(),:='\"\\$.~+*?!&|>#@ \n\t-_" + string.ascii_letters + string.digits, max_size=25
)
numbers = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63])
values = st.recursive(
    texts | numbers | st.booleans() | st.none() | st.sampled_from(HOSTILE_VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from([*KEYS, *GROUPS]) | texts
typed = st.one_of(
    texts,
    values.map(lambda value: json.dumps(value, ensure_ascii=False)),
    st.sampled_from(HOSTILE_VALUES),
    st.lists(texts, min_size=2, max_size=3).map(",".join),
)
words = st.one_of(
    st.builds(lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "", "+", "++", "~"]), keys, typed),
    texts,
    st.sampled_from(["-m", "--multirun", "--config-dir", "-cd", "--cfg", "--", "-"]),
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No probe of an environment is started, and --config-dir is forgotten afterwards."""

    def ask(env_id: str, request: str) -> Any:
        raise ConfigError(f"env.id={env_id}: is not asked here")

    assert command([]) == 0  # torch and Hydra are imported before anybody is watched
    monkeypatch.setattr(spaces, "_ask", ask)
    monkeypatch.setenv("RLEXP_CONF_DIR", "")


def answer(line: list[str]) -> None:
    """Check one command line; raises AssertionError where it is answered otherwise than it should be."""
    began = time.monotonic()
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), watched() as harm:
        code = guarded(lambda: command(line))
    said = stderr.getvalue()
    assert harm == []
    assert time.monotonic() - began < SECONDS
    if code == 0:
        assert said == ""
        assert stdout.getvalue().startswith("ok: ")
        stdout.getvalue().encode()
    else:
        assert code in (2, 6)
        assert re.fullmatch(rf"rlexp: error\[{code}\]: [^\n]+\n", said)
        assert said[:-1].isprintable()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_any_words_at_all_are_answered_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen hundred command lines of right, mistyped and meaningless words and hostile values: "ok", or one line and
    exit code 2 (6 where the memory would not do), no traceback; nothing runs, nothing is written, memory is bounded.
    """
    monkeypatch.chdir(tmp_path)
    before = peak()

    @MANY
    @given(st.lists(words, min_size=1, max_size=4))
    def each(line: list[str]) -> None:
        monkeypatch.setenv("RLEXP_CONF_DIR", "")
        answer(line)

    each()
    assert peak() - before < MEMORY
    assert list(tmp_path.iterdir()) == []


def _changed(text: str, at: int, removed: int, put: str) -> str:
    at %= len(text) + 1
    return text[:at] + put + text[at + removed :]


fragments = st.one_of(
    texts,
    st.sampled_from(HOSTILE_VALUES),
    values.map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    values.map(lambda value: "\n" + yaml.safe_dump({"a": value}, allow_unicode=True)),
)
changes = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40), fragments), min_size=1, max_size=3)


def test_any_configuration_file_at_all_is_answered_with_one_line() -> None:
    """Four hundred configuration folders, each with one of the bundled files changed at random places, or replaced by
    meaningless or hostile text: "ok", or one line and exit code 2, no traceback; nothing runs, nothing is written,
    memory is bounded.
    """
    before = peak()

    @FEW
    @given(st.sampled_from(FILES), changes, st.booleans())
    def each(file: Path, edits: list[tuple[int, int, str]], whole: bool) -> None:
        text = "" if whole else (conf_dir() / file).read_text()
        for at, removed, put in edits:
            text = _changed(text, at, removed, put)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode(errors="surrogatepass"))
            choice = [] if file.parent == Path() else [f"{file.parent}={file.stem}"]
            answer(["--config-dir", folder, *choice])
            assert sorted(p for p in Path(folder).rglob("*") if p.is_file()) == [path]

    each()
    assert peak() - before < MEMORY
