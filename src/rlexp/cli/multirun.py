"""`rlexp -m`: the jobs of a sweep, one after the other in this process or side by side in processes of their own."""

import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlexp.cli.account import Account
from rlexp.cli.common import report
from rlexp.cli.processes import job_command, last_words, run_side_by_side
from rlexp.errors import Interrupted, RlexpError
from rlexp.experiment.check import Checked
from rlexp.experiment.launcher import Launcher
from rlexp.experiment.plans import Plan, Planned, write_plan
from rlexp.experiment.run import Outcome, choose_directory
from rlexp.experiment.session import result_line, run_one
from rlexp.experiment.signals import CODES, handled
from rlexp.experiment.standing import standing_of
from rlexp.experiment.status import FAILED, FINISHED, INTERRUPTED, read_results, record_killed
from rlexp.storage.locks import locked

Due = Sequence[tuple[Planned, Checked]]


def run_all(jobs: Sequence[Checked], launcher: Launcher, command: Sequence[str]) -> int:
    """Run every job that is not finished; one that fails does not stop the others. Returns the first failure's code.

    Raises Interrupted where a signal stopped the sweep: what ran has saved, and the same command goes on.
    """
    planned = [
        Planned(number, job.name, choose_directory(job.config), job.overrides, job.config["total_env_steps"])
        for number, job in enumerate(jobs, start=1)
    ]
    plan = write_plan(Path(jobs[0].config["outputs"]), command, planned)
    with locked(plan.folder):
        stands = {job.number: standing_of(job.folder, job) for job in planned}
        account = Account(plan, launcher.processes)
        account.announce(stands)
        for job in planned:
            if stands[job.number].state == FINISHED:
                _say_result(job.folder, was_finished=True)
        due = [pair for pair in zip(planned, jobs, strict=True) if stands[pair[0].number].state != FINISHED]
        if launcher.processes is None:
            stopped = _one_after_the_other(due, account)
        else:
            stopped = _side_by_side(due, launcher.processes, plan, account)
        account.close()
    if stopped is not None and account.unfinished():
        raise Interrupted("the sweep was stopped; the same command continues", stopped)
    return account.code()


def _say_result(folder: Path, *, was_finished: bool) -> None:
    outcome = Outcome(folder, read_results(folder), was_finished)
    sys.stdout.write(result_line(outcome) + "\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------ in this process


def _one_after_the_other(due: Due, account: Account) -> int | None:
    """Returns the exit code of a sweep that a signal stopped, or None."""

    def stop(number: int, frame: Any) -> None:  # while a run trains, its own handlers stand in place of this one
        raise Interrupted(f"stopped by {signal.Signals(number).name}", CODES[signal.Signals(number)])

    try:
        with handled(stop):
            for planned, job in due:
                account.begin(planned)
                _run_here(planned, job, account)
    except Interrupted as error:
        return error.code
    return None


def _run_here(planned: Planned, job: Checked, account: Account) -> None:
    try:
        run_one(job)
    except Interrupted as error:  # it may have come when all but W&B was done
        state = standing_of(planned.folder).state
        account.end(planned, state if state in (FINISHED, FAILED) else INTERRUPTED, error.code, str(error))
        raise
    except RlexpError as error:
        report(error)
        account.end(planned, FAILED, error.code, str(error))
    except BrokenPipeError:
        raise
    except (Exception, SystemExit) as error:  # a bug in one job is shown whole, and the others still run
        traceback.print_exc()
        account.end(planned, FAILED, 1, f"{type(error).__name__}: {error}")
    else:
        account.end(planned, FINISHED)


# --------------------------------------------------------------------------------------------------------- side by side


def _side_by_side(due: Due, at_once: int, plan: Plan, account: Account) -> int | None:
    """Returns the exit code of a sweep that a signal stopped, or None."""

    def ended(i: int, status: int) -> None:
        planned = due[i][0]
        state, code, error = _how_it_ended(planned.folder, status, last_words(plan.log(planned)))
        account.end(planned, state, code, error)
        if state == FINISHED:
            _say_result(planned.folder, was_finished=False)

    # A live table wants a terminal, which no process of a sweep has.
    quiet = [[*job.overrides, *(["display=plain"] if job.config["display"] == "live" else [])] for _, job in due]
    commands = [job_command(planned.name, words) for (planned, _), words in zip(due, quiet, strict=True)]
    logs = [plan.log(planned) for planned, _ in due]
    received = run_side_by_side(commands, logs, at_once, lambda i: account.begin(due[i][0]), ended)
    return None if received is None else CODES[received]


class End(NamedTuple):
    """What became of a job."""

    state: str
    code: int
    error: str


def _how_it_ended(folder: Path, status: int, words: str) -> End:
    """From a process' status (negative: the signal that ended it) and its last words."""
    if status == 0 and standing_of(folder).state != FINISHED:  # something in it called os._exit
        error = "its process ended with code 0 before the run was finished"
        record_killed(folder, 1, error)
        return End(FAILED, 1, error)
    if status >= 0:
        state = INTERRUPTED if status in CODES.values() else FAILED if status else FINISHED
        return End(state, status, words or f"its process ended with code {status}")
    number = signal.Signals(-status)
    if number in CODES:  # it had not begun, or had done its work
        return End(INTERRUPTED, CODES[number], f"stopped by {number.name}")
    error = f"killed by {number.name}"
    if number == signal.SIGKILL:
        error += " (by a person, or by the system where memory ran out)"
    record_killed(folder, 128 - status, error)
    return End(FAILED, 128 - status, error)
