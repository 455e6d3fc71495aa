"""From the words of a command line to checked jobs."""

from collections.abc import Sequence

from rlexp.errors import ConfigError
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import Composed, compose_jobs, hydra_overrides, use_config_dir
from rlexp.experiment.extend import extended_config


def checked_jobs(overrides: Sequence[str], *, multirun: bool, config_dir: str | None = None) -> list[Checked]:
    """Compose and check every job; raises ConfigError for the first that cannot run. Nothing is written."""
    use_config_dir(config_dir)
    for override in hydra_overrides(overrides):
        if override.startswith(("hydra/launcher", "hydra/sweeper")):
            raise ConfigError(f"{override}: the jobs of a sweep run one after the other; leave it out")
    return [checked_job(job) for job in compose_jobs(overrides, multirun=multirun)]


def checked_job(job: Composed) -> Checked:
    if job.config.get("extend") is None:
        return check(job.config, job.overrides)
    return check(extended_config(check(job.config).config, job.overrides), job.overrides)
