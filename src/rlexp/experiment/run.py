"""One run from its checked configuration to its result: find or make its folder, continue or begin, train, evaluate."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from rlexp.errors import Interrupted, ResourceError, RlexpError
from rlexp.experiment.build import Parts, build
from rlexp.experiment.check import Checked
from rlexp.experiment.checkpoint import Checkpointer, Stateful
from rlexp.experiment.display import Display
from rlexp.experiment.evaluation import Evaluation, save_weights
from rlexp.experiment.evaluator import Evaluator
from rlexp.experiment.extend import adopt_parent
from rlexp.experiment.identity import config_hash, human_name, next_run_directory, run_directories
from rlexp.experiment.intervals import interval_of
from rlexp.experiment.loop import train
from rlexp.experiment.provenance import provenance
from rlexp.experiment.rows import Row, Rows
from rlexp.experiment.sessions import Sessions
from rlexp.experiment.signals import Signals, watched
from rlexp.experiment.status import FAILED, FINISHED, INTERRUPTED, RUNNING, read_status
from rlexp.experiment.wandb_mirror import Mirror, new_id
from rlexp.storage import RowLog, locked, make_directory, reap_unfinished, write_atomic, write_json
from rlexp.types import Callback, Progress


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: its folder and its results, and whether it had been finished before."""

    directory: Path
    results: Mapping[str, Any]
    was_finished: bool


def run(checked: Checked, display: Display) -> Outcome:
    """Begin, continue or recognise the run that a configuration describes.

    Raises RlexpError for what a person must know; the folder's status.json says the same.
    """
    directory = choose_directory(checked.config)
    make_directory(directory)
    with locked(directory):
        status = read_status(directory)
        if status.get("state") == FINISHED:
            return Outcome(directory, status.get("results", {}), was_finished=True)
        torch.set_num_threads(checked.config["execution"]["threads"])
        _describe(checked, directory)
        write_json(directory / "status.json", {"state": RUNNING})
        mirror = Mirror(directory, checked.config["logger"]["wandb"], display.say)
        try:
            with watched() as signals:
                results = _train_and_evaluate(checked, directory, signals, display, mirror)
        except (MemoryError, torch.OutOfMemoryError) as error:
            failure = ResourceError(
                f"{directory}: out of memory ({error}); lower experience.capacity, experience.num_envs or the network"
            )
            _record_failure(directory, failure)
            raise failure from error
        except BaseException as error:
            _record_failure(directory, error)
            raise
        else:
            write_json(directory / "status.json", {"state": FINISHED, "exit_code": 0, "results": results})
        finally:
            display.close()
            mirror.wait()
    return Outcome(directory, results, was_finished=False)


def choose_directory(config: Mapping[str, Any]) -> Path:
    """The newest run of this experiment and seed, or a new folder where there is none or `restart` asks for one."""
    existing = run_directories(config)
    return existing[-1] if existing and not config["restart"] else next_run_directory(config)


def _describe(checked: Checked, directory: Path) -> None:
    """config.yaml and run.json, written once: a continued run keeps what it was begun with."""
    for folder in ("checkpoints", "weights", "evaluations"):
        make_directory(directory / folder)
    if not (directory / "config.yaml").exists():
        write_atomic(directory / "config.yaml", yaml.safe_dump(checked.config, sort_keys=False))
    if not (directory / "run.json").exists():
        config = checked.config
        identity = {
            "name": checked.name or human_name(checked.overrides, config["seed"]),
            "group": config_hash(config),
            "seed": config["seed"],
            "overrides": list(checked.overrides),
            "wandb_id": new_id(),
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(directory / "run.json", identity | provenance(sys.argv, torch.device(config["device"])))


def _train_and_evaluate(
    checked: Checked, directory: Path, signals: Signals, display: Display, mirror: Mirror
) -> dict[str, Any]:
    config = checked.config
    for folder in (".", "checkpoints", "weights", "evaluations"):
        reap_unfinished(directory / folder)
    adopt_parent(config, directory)
    log = RowLog(directory / "rows.jsonl")
    parts = build(config, checked.spec, checked.schema)
    try:
        rows = _make_rows(checked, parts, log, [display.row, mirror.row])
        evaluation = _make_evaluation(checked, parts, rows, directory)
        checkpointer = _make_checkpointer(config, directory, parts, rows, evaluation)
        sessions = Sessions(directory, interval_of(config, "checkpoint"))
        if _load(directory, checkpointer, log, parts, display):
            env_steps = parts.state.progress.env_steps
            rows.resume(env_steps)
            checkpointer.resume(env_steps)
            if evaluation is not None:
                evaluation.resume(env_steps)
        _begin_session(sessions, config, parts, display)
        mirror.start()  # after the cut: from here on rows only come
        evaluations: list[Callback] = [evaluation] if evaluation else []
        stopped = train(parts, [rows, *evaluations, checkpointer, sessions, display, signals])
        checkpointer.save(parts.state.progress, parts.state)
        sessions.write()
        if stopped is not None:
            how = "the same command without restart=true" if config["restart"] else "the same command"
            raise signals.error(f"saved at env_steps={parts.state.progress.env_steps}; {how} continues")
        signals.at_once = True
        save_weights(directory / "weights" / "final", parts.state)
        display.say("evaluating")
        results = evaluation.finish(parts.state) if evaluation else {}
        sessions.write()
        return results
    finally:
        parts.close()
        log.close()


def _make_rows(checked: Checked, parts: Parts, log: RowLog, listeners: list[Callable[[Row], None]]) -> Rows:
    def statistics(progress: Progress) -> dict[str, float]:
        return parts.algorithm.statistics(checked.spec, progress)

    interval = interval_of(checked.config, "logger")
    return Rows(log, interval, parts.experience, parts.clock, statistics, listeners)


def _make_evaluation(checked: Checked, parts: Parts, rows: Rows, directory: Path) -> Evaluation | None:
    settings = checked.config["evaluation"]
    if settings is None:
        return None
    evaluator = Evaluator(checked.config, checked.spec, parts.actor, directory / "evaluations")
    interval = interval_of(checked.config, "evaluation")
    return Evaluation(evaluator, settings, interval, parts.experience, rows, directory / "weights")


def _make_checkpointer(
    config: Mapping[str, Any], directory: Path, parts: Parts, rows: Rows, evaluation: Evaluation | None
) -> Checkpointer:
    held: dict[str, Stateful] = {"state": parts.state, "experience": parts.experience, "rows": rows}
    if evaluation is not None:
        held["evaluation"] = evaluation
    interval = interval_of(config, "checkpoint")
    return Checkpointer(directory / "checkpoints", held, interval, config["checkpoint"]["keep"])


def _load(directory: Path, checkpointer: Checkpointer, log: RowLog, parts: Parts, display: Display) -> bool:
    """Whether there was a checkpoint to go on from."""
    path, damaged = checkpointer.load_newest()
    for line in damaged:
        display.say(f"passed over a damaged checkpoint: {line}")
    if path is None:
        log.cut(0)
        return False
    parts.state.progress = parts.state.progress._replace(env_steps=parts.experience.env_steps)
    display.say(f"continuing {directory} from env_steps={parts.state.progress.env_steps}")
    return True


def _begin_session(sessions: Sessions, config: Mapping[str, Any], parts: Parts, display: Display) -> None:
    """What this session computes with; a person hears why the run is no longer exact."""
    inexact = []
    if parts.vector is not None and parts.vector.inexact:
        inexact.append(f"environments {parts.vector.inexact} do not repeat themselves from their seeds and began anew")
    facts = provenance(sys.argv, torch.device(config["device"]))
    reasons = sessions.begin(parts.state.progress.env_steps, facts, config["execution"]["threads"], inexact)
    if reasons:
        display.say(f"this run is no longer exact: {'; '.join(reasons)}")


def _record_failure(directory: Path, error: BaseException) -> None:
    """status.json says how a run ended, also where the reason is a bug; a full disk must not hide that reason."""
    code = error.code if isinstance(error, RlexpError) else 1
    state = INTERRUPTED if isinstance(error, (Interrupted, KeyboardInterrupt)) else FAILED
    message = " ".join(str(error).split()) or type(error).__name__
    with contextlib.suppress(RlexpError):
        write_json(directory / "status.json", {"state": state, "exit_code": code, "error": message})
