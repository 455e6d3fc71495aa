"""What the commands share."""

import gc
import sys

import pytest

from rlexp.cli.common import LONGEST, lasting_imports, report
from rlexp.errors import ConfigError


def test_imports_that_bring_torch_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    collected: list[bool] = []

    def failing_imports() -> None:
        with lasting_imports():
            collected.append(gc.isenabled())
            raise ImportError

    try:
        with pytest.raises(ImportError):
            failing_imports()
        assert collected == [False]
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_where_torch_was_imported_before_nothing_is_kept() -> None:
    kept = gc.get_freeze_count()
    with lasting_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == kept


def test_a_long_message_is_cut_in_its_middle(capsys: pytest.CaptureFixture[str]) -> None:
    for length in (LONGEST - 60, 10 * LONGEST):
        report(ConfigError(f"env.id={'x' * length}: is not registered; name a registered one"))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("rlexp: error[2]: env.id=xxx")
        assert line.endswith("xxx: is not registered; name a registered one")
        assert (" ... " in line) == (length > LONGEST)
        assert len(line) <= LONGEST + 30
