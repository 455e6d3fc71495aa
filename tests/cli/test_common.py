"""What the commands share."""

import gc
import sys

import pytest

from rlexp.cli.common import lasting_imports


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
