"""One run from its checked configuration to its result: find or make its folder, continue or begin, train, evaluate."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from rlexp.envs.deadline import stepping_within
from rlexp.errors import StorageError
from rlexp.experiment.build import Parts, build, make_actor
from rlexp.experiment.check import Checked
from rlexp.experiment.checkpoint import Checkpointer, Stateful
from rlexp.experiment.display import Display
from rlexp.experiment.endings import Results, as_failure, finish, record, record_failure
from rlexp.experiment.evaluation import Evaluation, save_weights
from rlexp.experiment.evaluator import Evaluator
from rlexp.experiment.extend import adopt_parent
from rlexp.experiment.forecast import check_space, forecast
from rlexp.experiment.identity import (
    Identity,
    config_hash,
    human_name,
    name_of_seed,
    next_run_directory,
    run_directories,
)
from rlexp.experiment.intervals import EveryAndLast, interval_of
from rlexp.experiment.loop import train
from rlexp.experiment.members import Failures, alone, folders_of, places_of, seeds_of
from rlexp.experiment.provenance import provenance
from rlexp.experiment.remade import Remade
from rlexp.experiment.rows import Ledger, Row, Rows
from rlexp.experiment.sessions import Sessions
from rlexp.experiment.signals import Signals, watched
from rlexp.experiment.status import FINISHED, RUNNING, read_results, read_status
from rlexp.experiment.wandb_mirror import Mirror, new_id
from rlexp.redaction import redacted
from rlexp.storage import make_directory, write_atomic, write_json
from rlexp.storage.checkpoints import reap_unfinished
from rlexp.storage.locks import locked
from rlexp.storage.rows import RowLog, read_rows
from rlexp.types import Callback, Progress


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: its folder and the results of each seed, and whether it had been finished before."""

    directory: Path
    results: Results
    was_finished: bool


def run(checked: Checked, display: Display) -> Outcome:
    """Begin, continue or recognise the run that a configuration describes.

    Raises RlexpError for what a person must know; the folder's status.json says the same.
    """
    config = checked.config
    directory = choose_directory(config)
    folders = folders_of(config, directory)
    results: Results
    make_directory(directory, within=Path(config["outputs"]))
    with locked(directory), watched() as signals:
        if read_status(directory).get("state") == FINISHED:
            return Outcome(directory, read_results(directory), was_finished=True)
        torch.set_num_threads(config["execution"]["threads"])
        _describe(checked, directory, folders)
        record(directory, folders, {"state": RUNNING})
        settings = config["logger"]["wandb"]
        mirror = Mirror(list(folders.values()), settings, display.say)
        failures = Failures(list(folders))
        try:
            with stepping_within(config["execution"]["step_deadline"]):
                results = _train_and_evaluate(checked, directory, signals, display, mirror, failures)
            signals.phase = "settled"
            finish(directory, folders, results, failures)
        except BaseException as error:
            signals.phase = "settled"
            failure = as_failure(error, directory, signals)
            record_failure(directory, folders, failure)
            if failure is error:
                raise
            raise failure from error
        finally:
            display.close()
            mirror.start()  # where the run failed before its first row: that, too, is to be seen there
            with contextlib.suppress(KeyboardInterrupt):
                signals.phase = "waiting"
                if not signals.hurried:
                    mirror.wait()
            signals.phase = "settled"
    return Outcome(directory, results, was_finished=False)


def choose_directory(config: Mapping[str, Any]) -> Path:
    """The newest run of this experiment and seed, or a new folder where there is none or `restart` asks for one.

    Raises StorageError where one may not look.
    """
    try:
        existing = run_directories(config)
        return existing[-1] if existing and not config["restart"] else next_run_directory(config, existing)
    except OSError as error:
        raise StorageError(f"cannot read {config['outputs']}: {error.strerror or error}") from error


def name_of_job(checked: Checked) -> str:
    """What a sweep calls it, else all that was changed."""
    seeds = checked.config["seeds"]
    return checked.name or human_name(checked.overrides, checked.config["seed"] if seeds is None else seeds)


def _describe(checked: Checked, directory: Path, folders: Mapping[int, Path]) -> None:
    """config.yaml and run.json, written once: a continued run keeps what it was begun with."""
    config = checked.config
    make_directory(directory / "checkpoints", within=directory)
    identity = {
        "group": config_hash(config),
        "overrides": list(checked.overrides),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **provenance(sys.argv, torch.device(config["device"])),
    }
    called = name_of_job(checked)
    if config["seeds"] is not None:
        _write_once(directory, config, {"name": called, "seeds": config["seeds"], **identity})
    for seed, folder in folders.items():
        for name in ("weights", "evaluations"):
            make_directory(folder / name, within=directory)
        of_seed = {"name": name_of_seed(called, seed), "seed": seed, "wandb_id": new_id()}
        _write_once(folder, alone(config, seed), {**of_seed, **identity})


def _write_once(folder: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if not (folder / "config.yaml").exists():
        write_atomic(folder / "config.yaml", yaml.safe_dump(redacted(config), sort_keys=False))
    if not (folder / "run.json").exists():
        write_json(folder / "run.json", redacted(facts))


def _train_and_evaluate(
    checked: Checked,
    directory: Path,
    signals: Signals,
    display: Display,
    mirror: Mirror,
    failures: Failures,
) -> Results:
    config = checked.config
    folders = folders_of(config, directory)
    for folder in (directory, directory / "checkpoints", *folders.values()):
        reap_unfinished(folder)
    for folder in folders.values():
        reap_unfinished(folder / "weights")
        reap_unfinished(folder / "evaluations")
    adopt_parent(config, directory)
    with contextlib.ExitStack() as held:
        logs = {seed: RowLog(folder / "rows.jsonl") for seed, folder in folders.items()}
        for log in logs.values():
            held.callback(log.close)
        parts = held.enter_context(contextlib.closing(build(config, checked.spec, checked.schema)))
        failures.watch(parts.vector)
        much = check_space(forecast(config, checked.spec, parts.state), directory)
        if much is not None:
            display.say(much)
        sessions = Sessions(directory, interval_of(config, "checkpoint"))
        remade = Remade(functools.partial(_end_exactness, sessions, display))
        listeners: dict[int, list[Callable[[Row], None]]] = {
            seed: [*(functools.partial(told, seed=seed) for told in (display.row, remade.row)), mirror.row]
            for seed in folders
        }
        rows = _make_rows(checked, parts, logs, listeners, failures)
        evaluation = _make_evaluation(checked, parts, rows, folders)
        checkpointer = _make_checkpointer(config, directory, parts, rows, evaluation, failures, display)
        if _load(directory, checkpointer, logs, parts, display, remade):
            rows.resume(parts.state)
            checkpointer.resume(parts.state.progress.env_steps)
            if evaluation is not None:
                evaluation.resume(parts.state)
        _begin_session(sessions, config, parts, display, remade)
        mirror.start()  # after the cut: from here on rows only come
        evaluations: list[Callback] = [evaluation] if evaluation else []
        stopped = train(parts, [rows, *evaluations, checkpointer, sessions, display, signals])
        checkpointer.save(parts.state.progress, parts.state)
        sessions.write()
        if stopped is not None:
            how = "the same command without restart=true" if config["restart"] else "the same command"
            raise signals.error(f"saved at env_steps={parts.state.progress.env_steps}; {how} continues")
        signals.saved()
        for index, folder in enumerate(folders.values()):
            weights, progress = parts.actor.weights_of(index), parts.state.progress_of(index)
            save_weights(folder / "weights" / "final", weights, progress)
        display.say("evaluating")
        results = evaluation.finish(parts.state) if evaluation else {}
        sessions.write()
        return results


def _make_rows(
    checked: Checked,
    parts: Parts,
    logs: Mapping[int, RowLog],
    listeners: Mapping[int, Sequence[Callable[[Row], None]]],
    failures: Failures,
) -> Rows:
    def statistics(progress: Progress) -> dict[str, float]:
        return parts.algorithm.statistics(checked.spec, progress)

    interval = interval_of(checked.config, "logger")
    ledgers = [Ledger(places, interval, parts.clock) for places in places_of(parts.state)]
    return Rows(logs, ledgers, parts.experience, statistics, listeners, failures)


def _make_evaluation(checked: Checked, parts: Parts, rows: Rows, folders: Mapping[int, Path]) -> Evaluation | None:
    config = checked.config
    if config["evaluation"] is None:
        return None
    actor = make_actor(alone(config, seeds_of(config)[0]), checked.spec, checked.schema)
    evaluators = {
        seed: Evaluator(config, checked.spec, actor, folder / "evaluations") for seed, folder in folders.items()
    }
    weights = {seed: folder / "weights" for seed, folder in folders.items()}
    turns = [EveryAndLast(interval_of(config, "evaluation")) for _ in parts.state.members]
    return Evaluation(evaluators, config["evaluation"], turns, parts.experience, parts.actor, rows, weights)


def _make_checkpointer(
    config: Mapping[str, Any],
    directory: Path,
    parts: Parts,
    rows: Rows,
    evaluation: Evaluation | None,
    failures: Failures,
    display: Display,
) -> Checkpointer:
    held: dict[str, Stateful] = {
        "run": Identity(config),
        "state": parts.state,
        "experience": parts.experience,
        "rows": rows,
        "failures": failures,
    }
    if evaluation is not None:
        held["evaluation"] = evaluation
    interval, keep = interval_of(config, "checkpoint"), config["checkpoint"]["keep"]
    return Checkpointer(directory / "checkpoints", held, interval, keep, failures, display.say)


def _load(
    directory: Path,
    checkpointer: Checkpointer,
    logs: Mapping[int, RowLog],
    parts: Parts,
    display: Display,
    remade: Remade,
) -> bool:
    """Whether there was a checkpoint to go on from."""
    written = {seed: read_rows(log.path) for seed, log in logs.items()}
    path, damaged = checkpointer.load_newest()
    for line in damaged:
        display.say(f"passed over a damaged checkpoint: {line}")
    if path is None:
        for log in logs.values():
            log.cut(0)
    for seed, log in logs.items():
        remade.expect(seed, written[seed][log.next_seq :])
    if path is None:
        return False
    parts.state.advance(parts.experience)
    display.say(f"continuing {directory} from env_steps={parts.state.progress.env_steps}")
    return True


def _begin_session(
    sessions: Sessions, config: Mapping[str, Any], parts: Parts, display: Display, remade: Remade
) -> None:
    """What this session computes with; a person hears why the run is no longer exact."""
    inexact = []
    if parts.vector is not None and parts.vector.inexact:
        inexact.append(f"environments {parts.vector.inexact} do not repeat themselves from their seeds and began anew")
    if config["execution"]["compile"] and parts.state.progress.env_steps:
        inexact.append("compiled updates may round otherwise each time that they are compiled")
    facts = provenance(sys.argv, torch.device(config["device"]))
    reasons = sessions.begin(parts.state.progress.env_steps, facts, config["execution"], inexact)
    if reasons:
        display.say(f"this run is no longer exact: {'; '.join(reasons)}")
        remade.forget()


def _end_exactness(sessions: Sessions, display: Display, reason: str) -> None:
    display.say(f"this run is no longer exact: {reason}")
    sessions.end_exactness(reason)
