"""A proof of exactness on the way: rows that a continued run makes again, beside those that were cut from its log."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlexp.storage import to_jsonable

Row = Mapping[str, Any]


class Remade:
    """A listener of rows, after a run was continued.

    Training rows are compared in their order, all but time/*. The first that is of another turn ends it: rows are
    written by another interval now, and there is nothing to compare.

    differs: is told once, in a line, of the first row that came out otherwise.
    """

    def __init__(self, differs: Callable[[str], None]) -> None:
        self._differs = differs
        self._cut: dict[int, list[dict[str, Any]]] = {}

    def expect(self, seed: int, rows: Iterable[Row]) -> None:
        """What was cut from the log of a seed."""
        self._cut[seed] = [_compared(row) for row in rows if row["kind"] == "train"]

    def forget(self) -> None:
        """The run computes otherwise now, and says so: rows will differ."""
        self._cut.clear()

    def row(self, row: Row, seed: int) -> None:
        if not self._cut.get(seed) or row["kind"] != "train":
            return
        before, now = self._cut[seed].pop(0), _compared(json.loads(json.dumps(to_jsonable(dict(row)))))
        if before["env_steps"] != now["env_steps"]:
            del self._cut[seed]
        elif before != now:
            self.forget()
            name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
            self._differs(
                f"the row at env_steps={now['env_steps']} came out otherwise than before the run was stopped "
                f"({name} {before.get(name)} -> {now.get(name)})"
            )


def _compared(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seq" and not name.startswith("time/")}
