"""Make the pages of docs/ that follow from something else: metrics and rules from the tables in the code, reliability
from the fault tests, reliability and performance from docs/sources/ and the committed results in docs/results/.

python scripts/make_docs.py             # write them
python scripts/make_docs.py --check     # exit code 1 where they are not what the code says
"""

import argparse
import functools
import inspect
import sys

import docs_benchmark
import docs_faults
from docs_page import DOCS, Place, figures, fill

from rlexp.experiment.metrics import TABLE
from rlexp.experiment.rules import RULES
from rlexp.storage import write_atomic

REDUCTIONS = {
    "mean": "mean since the last row",
    "max": "largest since the last row",
    "present": "present value",
}

METRICS_HEAD = """\
# Metrics

Made from `src/rlexp/experiment/metrics.py` by `python scripts/make_docs.py`; a test holds every algorithm to the last
column.

The x-axis of every plot is `env_steps`, transitions over all environments; `updates` counts gradient steps (for value
iteration, sweeps). A row is written every `logger.interval` environment steps and holds what happened since the row
before. An episode's metrics are absent from a row in which no episode ended. The last row, of kind `final`, holds
`final/*` and `best/*`: return, its standard deviation over episodes, episodes and env_steps of both sets of weights.

"""

RULES_HEAD = """\
# Pair rules

Settings that are right alone and cannot work together. `rlexp` and `rlexp-check` refuse them with exit code 2 and the
rule's name, before any environment, folder or W&B run is made. Made from `src/rlexp/experiment/rules.py` by
`python scripts/make_docs.py`.

"""


def metrics_page() -> str:
    lines = ["| metric | meaning | in a row | logged by |", "| --- | --- | --- | --- |"]
    for metric in TABLE:
        meaning = metric.meaning.replace("|", "\\|")
        logged = ", ".join(sorted(metric.required)) or "where it is defined"
        lines.append(f"| `{metric.name}` | {meaning} | {REDUCTIONS[metric.reduce]} | {logged} |")
    return METRICS_HEAD + "\n".join(lines) + "\n"


def rules_page() -> str:
    lines = ["| rule | refuses |", "| --- | --- |"]
    lines += [f"| `{rule.__name__}` | {' '.join((inspect.getdoc(rule) or '').split())} |" for rule in RULES]
    return RULES_HEAD + "\n".join(lines) + "\n"


def from_source(name: str) -> str:
    """A page of docs/sources/ with its places filled."""
    known = docs_faults.read()
    places: dict[str, Place] = {
        "made": lambda: f"Made from `docs/sources/{name}` by `python scripts/make_docs.py`.",
        "figures": figures,
        "faults": functools.partial(docs_faults.promises, known),
        "counts": lambda: docs_faults.counts(known),
        "workloads": docs_benchmark.workloads,
        "sweep": docs_benchmark.sweep,
        "start": docs_benchmark.start,
    }
    return fill((DOCS / "sources" / name).read_text(), places)


PAGES = {"metrics.md": metrics_page, "rules.md": rules_page} | {
    name: functools.partial(from_source, name) for name in ("reliability.md", "performance.md")
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not options.check:
            write_atomic(path, text)
            path.chmod(0o644)
    sys.stdout.write(f"{'stale' if options.check else 'written'}: {', '.join(stale) or 'none'}\n")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
