"""`rlexp-sync RUN...`: make the W&B runs anew from the rows of saved runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rlexp.cli.common import Parser, guarded, report
from rlexp.errors import ResourceError, RlexpError
from rlexp.experiment.extend import read_config
from rlexp.experiment.identity import outputs_of
from rlexp.experiment.wandb_process import mirror, mirror_lock
from rlexp.experiment.wandb_run import DEFAULT_PROJECT, Target, describe
from rlexp.storage import read_json
from rlexp.storage.locks import locked

PATIENCE = 10.0  # seconds for a mirror of the same run to end


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """One W&B run for each folder, and a line. One that fails does not stop the others; returns the first one's code.

    Raises ConfigError, before anything is made, where a folder is not a run's.
    """
    parser = Parser(prog="rlexp-sync", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, such as outputs/*/*/s*")
    parser.add_argument(
        "--mode",
        choices=("auto", "online", "offline"),
        default="auto",
        help="online sends the rows that the server has not got; auto is online where a key is set (auto)",
    )
    parser.add_argument("--project", help="default: as the run was configured")
    parser.add_argument("--entity", help="default: as the run was configured")
    options = parser.parse_args(list(arguments))
    runs = [folder for run in options.runs for folder in of_each_seed(run)]
    for run in runs:
        describe(run)
    code = 0
    for run in runs:
        try:
            line = sync(run, options.mode, options.project, options.entity)
        except RlexpError as error:
            report(error)
            code = code or error.code
        else:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    return code


def of_each_seed(run: Path) -> list[Path]:
    """The folder itself, or those of the seeds that it stacks: each of them has a W&B run."""
    path = run / "run.json"
    seeds = (read_json(path) if path.exists() else {}).get("seeds")
    return [run] if seeds is None else [run / f"s{seed}" for seed in seeds]


def sync(run: Path, mode: str, project: str | None, entity: str | None) -> str:
    """Mirror one folder; returns what was done, in a line.

    Raises ConfigError where the folder is not a run's or W&B is switched off, StorageError where the run or its mirror
    is at work, ResourceError where `mode` is online and no server took the rows.
    """
    configured = (read_config(run).get("logger") or {}).get("wandb") or {"project": DEFAULT_PROJECT, "entity": None}
    target = Target(mode, project or configured["project"], entity or configured["entity"])
    with locked(run), mirror_lock(run, PATIENCE):
        done = mirror(run, target, run_lives=lambda: False)
    folder = outputs_of(run) / "wandb"
    if mode == "online" and done.mode != "online":
        raise ResourceError(f"{run}: not sent to W&B: {done.reason}; its offline copy is in {folder}")
    ended = "finished" if done.exit_code == 0 else f"ended with code {done.exit_code}"
    where = "sent" if done.mode == "online" else f"offline in {folder}"
    why = f" ({done.reason})" if done.reason else ""
    differs = f"; the server differs: {done.differs}" if done.differs else ""
    return f"{run}: {done.rows} rows, {ended}, {where}{why}{differs}"
