"""From the words of a command line to checked jobs."""

from collections.abc import Sequence

from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import Composed, compose_jobs, use_config_dir
from rlexp.experiment.extend import extended_config


def checked_jobs(overrides: Sequence[str], *, multirun: bool, config_dir: str | None = None) -> list[Checked]:
    """Compose and check every job; raises ConfigError for the first that cannot run. Nothing is written."""
    use_config_dir(config_dir)
    return [checked_job(job) for job in compose_jobs(overrides, multirun=multirun)]


def checked_job(job: Composed) -> Checked:
    if job.config.get("extend") is None:
        return check(job.config, job.overrides)
    return check(extended_config(check(job.config).config, job.overrides), job.overrides)
