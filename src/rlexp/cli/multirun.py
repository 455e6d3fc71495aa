"""`rlexp -m`: the jobs of a sweep, launched by Hydra, told apart by their own folders."""

import sys
from collections.abc import Sequence

from rlexp.cli.common import report
from rlexp.errors import Interrupted, RlexpError
from rlexp.experiment.check import Checked
from rlexp.experiment.session import run_one


def run_all(jobs: Sequence[Checked]) -> int:
    """Run every job, one after the other; a failed one does not stop the others. Returns the first failure's code.

    A finished job is recognised and costs nothing, so the same command again runs only what is not finished.
    """
    failures: list[tuple[int, RlexpError]] = []
    for number, job in enumerate(jobs):
        sys.stderr.write(f"job {number + 1} of {len(jobs)}: {' '.join(job.overrides)}\n")
        try:
            run_one(job)
        except Interrupted:
            raise
        except RlexpError as error:
            report(error)
            failures.append((number, error))
    for number, error in failures:
        sys.stderr.write(
            f"failed: job {number + 1} ({' '.join(jobs[number].overrides)}): {' '.join(str(error).split())}\n"
        )
    return failures[0][1].code if failures else 0
