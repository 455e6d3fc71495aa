"""`rlexp`: compose, check, run."""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from rlexp.cli.common import Parser, guarded, lasting_imports
from rlexp.cli.help import HELP
from rlexp.errors import ConfigError
from rlexp.experiment.signals import leave_until_a_run_begins


def main() -> None:
    """The console script."""
    leave_until_a_run_begins()
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code. Raises RlexpError for what a person must know."""
    if any(argument in ("-h", "--help") for argument in arguments):
        sys.stdout.write(HELP)
        return 0
    if "--version" in arguments:
        sys.stdout.write(f"rlexp {importlib.metadata.version('rlexp')}\n")
        return 0
    if any(argument.split("=")[0] in HYDRA_FLAGS for argument in arguments):
        return hydra_command(arguments)
    options, overrides = parse(arguments)
    if options.cfg is not None:
        return show(options, overrides)
    with lasting_imports():  # torch is imported here: --help and typos of a flag stay fast
        from rlexp.experiment.jobs import checked_jobs
        from rlexp.experiment.session import run_one

    jobs = checked_jobs(overrides, multirun=options.multirun, config_dir=options.config_dir)
    if options.multirun:
        from rlexp.cli.multirun import run_all
        from rlexp.experiment.launcher import split_launcher

        return run_all(jobs, split_launcher(overrides, multirun=True)[0], arguments)
    run_one(jobs[0])
    return 0


HYDRA_FLAGS = ("--info", "-i", "--shell-completion", "-sc", "--hydra-help")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and overrides; raises ConfigError for a flag that is not known."""
    parser = Parser(prog="rlexp", add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c", choices=["job"])
    options, rest = parser.parse_known_args(list(arguments))
    for word in rest:
        if word.startswith("-"):
            raise ConfigError(f"{word}: unknown flag; see rlexp --help")
    return options, rest


def show(options: argparse.Namespace, overrides: list[str]) -> int:
    """`--cfg job`: the composed configuration of each job, unchecked, and without secrets, as it would be saved."""
    import yaml

    from rlexp.experiment.compose import compose_jobs, use_config_dir
    from rlexp.experiment.launcher import split_launcher
    from rlexp.redaction import redacted

    use_config_dir(options.config_dir)
    _, rest = split_launcher(overrides, multirun=options.multirun)
    for job in compose_jobs(rest, multirun=options.multirun):
        sys.stdout.write(yaml.safe_dump(redacted(job.config), sort_keys=False))
    return 0


def hydra_command(arguments: Sequence[str]) -> int:
    """Leave `--info searchpath` and shell completion to Hydra."""
    import hydra

    from rlexp.experiment.compose import conf_dir, use_config_dir

    parser = Parser(prog="rlexp", add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    options, arguments = parser.parse_known_args(list(arguments))
    use_config_dir(options.config_dir)

    def nothing(config: Any) -> None:
        """Hydra prints and never calls this."""

    sys.argv = ["rlexp", *arguments]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(nothing)()
    return 0
