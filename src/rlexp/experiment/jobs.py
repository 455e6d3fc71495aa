"""From the words of a command line to checked jobs."""

import dataclasses
from collections.abc import Sequence

from rlexp.errors import ResourceError
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import Composed, compose_jobs, use_config_dir
from rlexp.experiment.extend import extended_config
from rlexp.experiment.launcher import split_launcher
from rlexp.experiment.memory import check_memory
from rlexp.experiment.plans import job_names, refuse_duplicates
from rlexp.experiment.run import choose_directory
from rlexp.experiment.status import FINISHED, read_status


def checked_jobs(overrides: Sequence[str], *, multirun: bool, config_dir: str | None = None) -> list[Checked]:
    """Compose and check every job; raises ConfigError for the first that cannot run. Nothing is written.

    What chooses a launcher is checked and has no other effect here. Jobs of a sweep get their names, and no two of
    them are the same run.
    """
    use_config_dir(config_dir)
    _, rest = split_launcher(overrides, multirun=multirun)
    jobs = [checked_job(job) for job in compose_jobs(rest, multirun=multirun)]
    if not multirun:
        return jobs
    words = [job.overrides for job in jobs]
    refuse_duplicates([choose_directory(job.config) for job in jobs], words)
    seeds = [job.config["seed"] if job.config["seeds"] is None else job.config["seeds"] for job in jobs]
    names = job_names(words, seeds)
    return [dataclasses.replace(job, name=name) for job, name in zip(jobs, names, strict=True)]


def checked_job(job: Composed) -> Checked:
    """Raises ConfigError where a job cannot run, ResourceError where this machine has not the memory for it."""
    config = job.config
    if config.get("extend") is not None:
        config = extended_config(check(config).config, job.overrides)
    checked = check(config, job.overrides)
    try:
        check_memory(checked.config, checked.spec)
    except ResourceError:
        if read_status(choose_directory(checked.config)).get("state") != FINISHED:  # that one is only shown
            raise
    return checked
