"""What the fault tests promise, read from their files without importing them: names, docstrings and two constants.

A test is called `test_f13_...`, its docstring begins with the promise: what is done, and what must come out. The
constant `ELSEWHERE` names tests outside of tests/faults that do it, `NOT_INJECTED` says what is not done, and why.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docs_page import table

ROOT = Path(__file__).resolve().parents[1]
FAULTS = {
    1: "SIGKILL at a random moment", 2: "SIGKILL inside a save", 3: "SIGKILL between rows and checkpoint",
    4: "SIGKILL while old checkpoints are removed", 5: "power loss", 6: "SIGTERM, SIGUSR1",
    7: "a signal during a save, an evaluation, a reset", 8: "a storm of signals", 9: "Ctrl-C once, twice",
    10: "the run killed while an environment hangs", 11: "inherited signal handlers", 12: "the clock jumps",
    13: "two runs in one folder", 14: "processes and threads",
    15: "disk full during rows", 16: "disk full during a save", 17: "too little room from the start",
    18: "a quota, a limit on file size", 19: "a folder that cannot be written", 20: "fsync fails",
    21: "files cut short, empty, zeroed", 22: "one flipped bit", 23: "a checkpoint of another version",
    24: "a checkpoint of another run", 25: "odd names and long paths", 26: "no file handles, no inodes",
    27: "W&B's files grow",
    28: "server down at the start", 29: "server dies in mid-run", 30: "wrong key", 31: "no key, no terminal",
    32: "SIGKILL, W&B offline", 33: "resumed, W&B ahead", 34: "W&B hangs at the end", 35: "NaN and infinity in metrics",
    36: "an environment raises", 37: "raises what cannot be pickled", 38: "a worker dies", 39: "an environment hangs",
    40: "observation NaN or infinite", 41: "observation outside its space", 42: "wrong shape or type",
    43: "reward NaN, infinite, no number", 44: "an environment breaks its contract", 45: "loss NaN, large gradients",
    46: "a buffer larger than the memory", 47: "a device that is not there", 48: "huge counts", 49: "memory growth",
    50: "typing errors", 51: "wrong types and values", 52: "settings that do not go together",
    53: "a job of a sweep fails", 54: "jobs of a sweep disturb each other", 55: "malicious checkpoint",
    56: "malicious configuration", 57: "paths that lead elsewhere", 58: "secrets", 59: "permissions of files",
}  # fmt: skip


class Test(NamedTuple):
    """faults: numbers.  name: `test_signals.py::test_f06_...`.  promise: the first paragraph of its docstring."""

    faults: tuple[int, ...]
    name: str
    promise: str


class Known(NamedTuple):
    """tests: in the order of files and lines.  not_injected: by fault, the reasons."""

    tests: list[Test]
    not_injected: dict[int, list[str]]


def read(root: Path = ROOT) -> Known:
    """All that tests/faults/test_*.py say. Raises SystemExit for a constant that cannot be read, or a missing test."""
    tests: list[Test] = []
    reasons: dict[int, list[str]] = {}
    for path in sorted((root / "tests" / "faults").glob("test_*.py")):
        tree = ast.parse(path.read_text())
        for function in _functions(tree):
            faults = tuple(dict.fromkeys(int(n) for n in re.findall(r"(?<=_)f(\d+)(?=_|$)", function.name)))
            if faults:
                tests.append(Test(faults, f"{path.name}::{function.name}", _promise(function)))
        for fault, reason in _constant(tree, "NOT_INJECTED", path).items():
            reasons.setdefault(_number(fault), []).append(reason)
        for fault, names in _constant(tree, "ELSEWHERE", path).items():
            tests += [_elsewhere(root, _number(fault), name) for name in names]
    return Known(tests, reasons)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def _promise(function: ast.FunctionDef) -> str:
    paragraph = (ast.get_docstring(function) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()) or function.name.removeprefix("test_").replace("_", " ")


def _constant(tree: ast.Module, name: str, path: Path) -> dict[str, Any]:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign))
            assert node.value is not None
            try:
                found: dict[str, Any] = ast.literal_eval(node.value)
            except ValueError:
                raise SystemExit(
                    f"{path}, line {node.lineno}: {name} must be written out, without expressions"
                ) from None
            return found
    return {}


def _number(fault: str) -> int:
    return int(fault.lstrip("Ff"))


def _elsewhere(root: Path, fault: int, name: str) -> Test:
    file, _, function = name.partition("::")
    wanted = function.partition("[")[0]
    path = root / file
    found = (
        next((f for f in _functions(ast.parse(path.read_text())) if f.name == wanted), None) if path.exists() else None
    )
    if found is None:
        raise SystemExit(f"{name}: named in ELSEWHERE of F{fault}, and there is no such test")
    return Test((fault,), name.removeprefix("tests/"), _promise(found))


def promises(known: Known, first: str, last: str) -> str:
    """A table of the tests of faults `first` to `last`, and below it what of them is not injected."""
    rows, reasons, without = [], [], []
    for fault in range(int(first), int(last) + 1):
        of_it = [test for test in known.tests if fault in test.faults]
        for number, test in enumerate(of_it):
            head = f"F{fault} {FAULTS[fault]}" if number == 0 else ""
            rows.append([head, test.promise, f"`{test.name}`"])
        reasons += [
            f"- F{fault} {FAULTS[fault]}: {reason.rstrip('.')}." for reason in known.not_injected.get(fault, [])
        ]
        if not of_it and fault not in known.not_injected:
            without.append(f"F{fault} {FAULTS[fault]}")
    parts = [table(["fault", "what is done, and what must come out", "test"], rows)] if rows else []
    parts += ["Not injected:\n\n" + "\n".join(reasons)] if reasons else []
    parts += [f"Without a test yet: {'; '.join(without)}."] if without else []
    return "\n\n".join(parts)


def counts(known: Known) -> str:
    """A sentence: how many faults have how many tests."""
    tested = {fault for test in known.tests for fault in test.faults}
    return f"{len(tested)} of the {len(FAULTS)} faults are injected, by {len(known.tests)} tests."
