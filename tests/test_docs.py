"""scripts/make_docs.py: what it reads of fault tests and results, and what it makes of them."""

import json
from pathlib import Path

import docs_benchmark
import docs_faults
import docs_page
import pytest

FILE = '''
"""Signals."""

ELSEWHERE: dict[str, list[str]] = {"F3": ["tests/test_rows.py::test_rows_are_cut[ppo]"]}
NOT_INJECTED = {
    "F4": "it needs another machine.",
    "F1": "part of it",
}


def test_f01_a_kill() -> None:
    """Killed: it ends
    equal.

    More of it.
    """


def test_both_f02_and_f1_at_once() -> None:
    pass


def test_of_nothing() -> None:
    pass
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests" / "faults").mkdir(parents=True)
    (tmp_path / "tests" / "faults" / "test_signals.py").write_text(FILE)
    (tmp_path / "tests" / "test_rows.py").write_text('def test_rows_are_cut():\n    """Cut: made | again."""\n')
    return tmp_path


def test_promises_are_read_from_names_docstrings_and_constants(root: Path) -> None:
    known = docs_faults.read(root)
    assert [test.faults for test in known.tests] == [(1,), (2, 1), (3,)]
    assert docs_faults.promises(known, "1", "5").splitlines()[2:] == [
        "| F1 SIGKILL at a random moment | Killed: it ends equal. | `test_signals.py::test_f01_a_kill` |",
        "|  | both f02 and f1 at once | `test_signals.py::test_both_f02_and_f1_at_once` |",
        "| F2 SIGKILL inside a save | both f02 and f1 at once | `test_signals.py::test_both_f02_and_f1_at_once` |",
        "| F3 SIGKILL between rows and checkpoint | Cut: made \\| again. | `test_rows.py::test_rows_are_cut[ppo]` |",
        "",
        "Not injected:",
        "",
        "- F1 SIGKILL at a random moment: part of it.",
        "- F4 SIGKILL while old checkpoints are removed: it needs another machine.",
        "",
        "Without a test yet: F5 power loss.",
    ]
    assert docs_faults.counts(known) == "3 of the 59 faults are injected, by 3 tests."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test_rows.py::", "test_gone.py::", "there is no such test"),
        ("test_rows_are_cut[", "test_rows_are_kept[", "there is no such test"),
        ('"part of it"', 'f"{1}"', "must be written out"),
    ],
)
def test_what_is_not_there_is_not_claimed(old: str, new: str, message: str, root: Path) -> None:
    path = root / "tests" / "faults" / "test_signals.py"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SystemExit, match=message):
        docs_faults.read(root)


def test_a_place_is_filled_and_an_unknown_one_refused() -> None:
    text = "a\n\n{{twice b c}}\n\nnot {{twice}} here\n"
    assert docs_page.fill(text, {"twice": lambda *words: "-".join(words * 2)}) == "a\n\nb-c-b-c\n\nnot {{twice}} here\n"
    with pytest.raises(SystemExit, match="no such place"):
        docs_page.fill("{{thrice}}\n", {"twice": str})


def test_figures_are_shown_whatever_their_names(tmp_path: Path) -> None:
    assert docs_page.figures("kill_storm", tmp_path) == docs_page.NOT_MEASURED
    found = {
        "kills": 1200,
        "rows_lost": 0,
        "slope": 0.123456,
        "bad": [],
        "cases": {"ppo": {"kills": 3, "difference": None}, "dqn": {"kills": 4, "ratio": spread(2)}},
        "git": {"commit": "abc"},
        "date": "2026-11-26",
        "machine": {"cores": 2},
    }  # fmt: skip
    (tmp_path / "kill_storm.json").write_text(json.dumps(found))
    assert docs_page.figures("kill_storm", tmp_path).splitlines() == [
        "|  |  |",
        "| --- | --- |",
        "| kills | 1,200 |",
        "| rows lost | 0 |",
        "| slope | 0.1235 |",
        "| bad | none |",
        "",
        "| cases | kills | difference | ratio |",
        "| --- | --- | --- | --- |",
        "| ppo | 3 | none |  |",
        "| dqn | 4 |  | 2 (1..3) |",
        "",
        "Measured: 2026-11-26; cores 2.",
    ]


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median - 1, "max": median + 1}


def test_a_recorded_benchmark_replaces_its_workload_alone(tmp_path: Path) -> None:
    machine = {"torch": "2", "processor": "P", "cores": "2"}
    speed = {"ratio": spread(2), "steps_per_cpu_second": {"sb3": spread(10), "rlexp": spread(20)}, "rounds": [{}, {}]}
    way = {"wall_seconds": spread(9), "cpu_seconds": spread(8), "times_faster": spread(3), "load": spread(1)}
    titles = {"W1": "one", "W2": "two"}
    assert docs_benchmark.workloads(tmp_path) == docs_benchmark.sweep(tmp_path) == docs_page.NOT_MEASURED
    first = docs_benchmark.recorded(
        None, {"machine": machine, "workloads": {"W1": speed, "W2": speed}}, titles, "Monday"
    )
    sweep = {"ways": {"stacked": way}, "rounds": [{}]}
    found = {"machine": machine, "workloads": {"W2": {**speed, "ratio": spread(4)}}, "sweep": sweep}
    second = docs_benchmark.recorded(first, found, titles, "Tuesday")
    (tmp_path / "benchmark.json").write_text(json.dumps(second))
    shown = docs_benchmark.workloads(tmp_path)
    assert "| W1: one | 2 | 10 (9..11) | 20 (19..21) | **2.00 (1.00..3.00)** |" in shown
    assert "| W2: two | 2 | 10 (9..11) | 20 (19..21) | **4.00 (3.00..5.00)** |" in shown
    assert "W1: measured Monday on P, 2 cores; torch 2. W2: measured Tuesday" in shown
    assert "| `rlexp seeds=[0,...,9]`, one process on one core | 9.0 (8.0..10.0) |" in docs_benchmark.sweep(tmp_path)
