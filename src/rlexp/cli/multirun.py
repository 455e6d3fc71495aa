"""`rlexp -m`: the jobs of a sweep, one after the other, told apart by their own folders."""

import sys
import traceback
from collections.abc import Sequence

from rlexp.cli.common import report
from rlexp.errors import Interrupted, RlexpError
from rlexp.experiment.check import Checked
from rlexp.experiment.session import run_one


def run_all(jobs: Sequence[Checked]) -> int:
    """Run every job; a failed one does not stop the others, a signal stops the sweep. Returns the first failure's code.

    A finished job is recognised and costs nothing, so the same command again runs only what is not finished.
    """
    failures: list[tuple[int, int, str]] = []
    for number, job in enumerate(jobs, start=1):
        sys.stderr.write(f"job {number} of {len(jobs)}: {' '.join(job.overrides)}\n")
        try:
            run_one(job)
        except Interrupted:
            raise
        except RlexpError as error:
            report(error)
            failures.append((number, error.code, str(error)))
        except Exception as error:  # a bug in one job is shown whole, and the others still run
            traceback.print_exc()
            failures.append((number, 1, f"{type(error).__name__}: {error}"))
    for number, _, message in failures:
        line = " ".join(message.split())
        sys.stderr.write(f"failed: job {number} of {len(jobs)} ({' '.join(jobs[number - 1].overrides)}): {line}\n")
    return failures[0][1] if failures else 0
