"""`rlexp-check`: what a command line would run, or what is wrong with it; nothing is made."""

import sys
from collections.abc import Sequence

from rlexp.cli.common import guarded, lasting_imports
from rlexp.cli.main import parse


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """Check every job; raises RlexpError for the first fault."""
    options, overrides = parse(arguments)
    with lasting_imports():
        from rlexp.experiment.identity import experiment_directory
        from rlexp.experiment.jobs import checked_jobs

    jobs = checked_jobs(overrides, multirun=options.multirun, config_dir=options.config_dir)
    for job in jobs:
        seed = job.config["seed"]
        sys.stdout.write(f"ok: {experiment_directory(job.config)}/s{seed}, {job.config['total_env_steps']} env_steps\n")
    return 0
