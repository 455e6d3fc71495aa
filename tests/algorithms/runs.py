"""Small runs, built from a command line as a person would type it."""

import functools

from rlexp.experiment.build import Parts, build
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import compose_jobs
from rlexp.experiment.loop import train


def built(*words: str) -> Parts:
    """The parts of a run, without a logger or an evaluation."""
    job = checked(words)
    return build(job.config, job.spec, job.schema)


@functools.cache
def checked(words: tuple[str, ...]) -> Checked:
    (job,) = compose_jobs([*words, "logger=local", "evaluation=none"])
    return check(job.config)


def trained(*words: str) -> Parts:
    """The parts after the whole run."""
    parts = built(*words)
    assert train(parts, []) is None
    parts.close()
    return parts
