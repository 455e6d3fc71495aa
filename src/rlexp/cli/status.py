"""`rlexp-status DIR`: which runs are finished, running, interrupted, failed, killed or waiting; returns and times."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlexp.cli.account import table
from rlexp.cli.common import Parser, guarded
from rlexp.experiment.pace import clock
from rlexp.experiment.plans import Plan
from rlexp.experiment.standing import Standing, standings
from rlexp.experiment.status import FINISHED
from rlexp.storage import to_jsonable

NAME = 60  # characters of a name that are shown; --json has all
HEADER = ("run", "state", "env_steps", "", "return", "time", "name", "error")


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """A table on stdout; the exit code says whether it could be read, not how the runs stand.

    Raises ConfigError where the folder holds neither runs nor a sweep.
    """
    parser = Parser(prog="rlexp-status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("outputs"),
        metavar="DIR",
        help="outputs (the default), a folder in it, a run's, or a sweep's (outputs/.multirun/ID)",
    )
    parser.add_argument("--json", action="store_true", help="one object for each run")
    options = parser.parse_args(list(arguments))
    runs, plans = standings(options.directory)
    lines = _as_json(runs) if options.json else [*_as_table(runs, options.directory), *_sweeps(plans, runs)]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return 0


def _as_json(runs: Sequence[Standing]) -> list[str]:
    return [json.dumps(to_jsonable(run._asdict() | {"folder": str(run.folder)}), allow_nan=False) for run in runs]


def _as_table(runs: Sequence[Standing], directory: Path) -> list[str]:
    rows = [HEADER, *(_row(run, directory.resolve()) for run in runs)]
    counts = Counter(run.state for run in runs)
    total = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    return [*table(rows), f"{total}: {', '.join(f'{n} {state}' for state, n in counts.most_common())}"]


def _row(run: Standing, directory: Path) -> tuple[str, ...]:
    inside = run.folder.is_relative_to(directory) and run.folder != directory
    share = run.env_steps / run.total_env_steps if run.env_steps and run.total_env_steps else None
    return (
        str(run.folder.relative_to(directory) if inside else run.folder),
        run.state,
        "" if run.env_steps is None else str(run.env_steps),
        "" if share is None else f"{share:.0%}",
        "" if run.final_return is None else f"{run.final_return:.1f}",
        "" if run.wall_s is None else clock(run.wall_s),
        run.name if len(run.name) <= NAME else f"{run.name[: NAME - 3]}...",
        "" if run.state == FINISHED or run.error is None else run.error,
    )


def _sweeps(plans: Sequence[Plan], runs: Sequence[Standing]) -> list[str]:
    """A line for each sweep that is at work, or that left some of these runs to do."""
    finished = {run.folder for run in runs if run.state == FINISHED}
    lines = []
    for plan in plans:
        if plan.is_at_work():
            lines.append(f"sweep {plan.folder.name} is at work")
        elif any(job.folder.resolve() not in finished for job in plan.jobs):
            lines.append(f"sweep {plan.folder.name} is not at work; `{shlex.join(['rlexp', *plan.command])}` continues")
    return lines


if __name__ == "__main__":
    main()
