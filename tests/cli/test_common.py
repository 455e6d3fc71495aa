"""What the commands share."""

import gc
import sys

import pytest

from rlexp.cli.common import lasting_imports


def test_imports_that_bring_torch_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with pytest.raises(ImportError), lasting_imports():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_where_torch_was_imported_before_nothing_is_kept() -> None:
    kept = gc.get_freeze_count()
    with lasting_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == kept
