"""Kill a run again and again and compare what is left with the run that was never killed.

    python scripts/kill_storm.py                  # 50 kills of each case, one at every sweep of value iteration
    python scripts/kill_storm.py --kills 100 ppo
    python scripts/kill_storm.py --total 300 --record docs/results/kill_storm.json    # shared by the six algorithms

Each life of a run is a forked process that goes on from what the one before left. It dies by SIGKILL, at random: half
of the lives at the n-th operation of the package that writes (so also inside a save), half at a random moment. In the
end rows (all but time/*), final weights and the whole last checkpoint must equal those of the undisturbed run, bit for
bit.
"""

import argparse
import dataclasses
import functools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlexp import storage
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import compose_jobs
from rlexp.experiment.display import Display
from rlexp.experiment.members import folders_of
from rlexp.experiment.provenance import provenance
from rlexp.experiment.run import choose_directory, run
from rlexp.storage.checkpoints import load_tree
from rlexp.storage.rows import parse_row, read_rows

SHORT = [
    "logger=local",
    "display=none",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "evaluation.num_envs=2",
]
FALLING = "{_target_: rlexp.functional.schedules.linear, start: 0.01, end: 0.0, fraction: 1.0}"
CASES = {
    "ppo": ["algorithm=ppo", "total_env_steps=6000", "experience.rollout_length=25", "algorithm.num_epochs=2"],
    "ppo_8": ["algorithm=ppo", "total_env_steps=6000", "experience.rollout_length=25"],
    "dqn": ["algorithm=dqn", "total_env_steps=4000", "experience.learning_starts=300", "experience.capacity=2000"],
    "dqn_8": ["algorithm=dqn", "total_env_steps=8000", "experience.learning_starts=800", "experience.capacity=4000"],
    "a2c": ["algorithm=a2c", "total_env_steps=6000", "algorithm.shared_encoder=true"],
    "reinforce": ["algorithm=reinforce", "total_env_steps=6000", "experience.num_episodes=6", "experience.num_envs=3"],
    "sac": ["algorithm=sac", "total_env_steps=3000", "experience.learning_starts=300", "experience.capacity=2000"],
    "value_iteration": [
        "algorithm=value_iteration",
        "env=cliff_walking",
        "total_env_steps=60",
        "checkpoint.interval=1",
    ],
}
CASES["ppo"] += ["experience.num_envs=1", "algorithm.num_minibatches=1"]
CASES["ppo_8"] += ["experience.num_envs=8"]
CASES["dqn_8"] += ["experience.num_envs=8", "experience.collection_steps=16", "experience.updates_per_collection=2"]
CASES["dqn_8"] += ["estimator=n_step", "experience.sequence_length=5", "network.layer_norm=true"]
CASES["sac"] += ["env=pendulum", "network.hidden=[16]", "experience.batch_size=32", "experience.collection_steps=4"]
CASES["ppo_normalised"] = [*CASES["ppo_8"], "normalization=observations_and_rewards"]
CASES["sac_normalised"] = [*CASES["sac"], "normalization=observations_and_rewards"]
CASES["ppo_stacked"] = [*CASES["ppo_8"], "experience.num_envs=4", "seeds=[0,1,2]"]
CASES["dqn_stacked"] = [*CASES["dqn"], "seeds=[0,1,2]"]
CASES["reinforce_stacked"] = [*CASES["reinforce"], "seeds=[0,1,2]", "optimizer.learning_rate=" + FALLING]
CASES["reinforce_numpy"] = [*CASES["reinforce"], "execution.vector=numpy"]
CASES["value_iteration"] += ["logger.interval=1"]
ALGORITHMS = ("ppo", "a2c", "reinforce", "dqn", "sac", "value_iteration")
"""One case of each, which share a total."""

Hook = Callable[[str, Path], None]


def live(overrides: Sequence[str], outputs: Path, hook: Hook | None = None, patience: float | None = None) -> int:
    """One life of a run in a forked process; returns its exit status, negative where a signal ended it.

    hook: called before each operation of storage.  patience: seconds after which SIGKILL comes from outside.
    """
    checked = _checked(tuple(overrides), str(outputs))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            storage.before_operation = hook
            torch.set_num_threads(1)
            run(checked, Display("none"))
            status = 0
        except BaseException as error:  # the parent reads the status; a traceback here helps whoever broke it
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


def _checked(overrides: tuple[str, ...], outputs: str) -> Checked:
    checked = _checked_once(overrides)
    return dataclasses.replace(checked, config={**checked.config, "outputs": outputs})


@functools.cache
def _checked_once(overrides: tuple[str, ...]) -> Checked:
    (job,) = compose_jobs(overrides)
    return check(job.config, job.overrides)


def remains(overrides: Sequence[str], outputs: Path) -> dict[str, Any]:
    """What a finished run left, without times: rows, final weights, the newest checkpoint."""
    config = _checked(tuple(overrides), str(outputs)).config
    directory = choose_directory(config)
    newest = max((directory / "checkpoints").glob("[0-9]*"))
    left = {f"s{seed}": _of_seed(folder) for seed, folder in folders_of(config, directory).items()}
    return {**left, "checkpoint": load_tree(newest), "name": newest.name}


def _of_seed(folder: Path) -> dict[str, Any]:
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_rows(folder / "rows.jsonl")
    ]
    final = folder / "weights" / "final"
    return {"rows": rows, "weights": load_tree(final) if final.exists() else {}}


def difference(a: Any, b: Any, where: str = "") -> str | None:
    """The first place where two trees differ in any bit, or None."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} and {type(b).__name__}"
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))}"
        return next((found for key in a if (found := difference(a[key], b[key], f"{where}/{key}"))), None)
    if isinstance(a, list):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        pairs = enumerate(zip(a, b, strict=True))
        return next((found for i, (x, y) in pairs if (found := difference(x, y, f"{where}/{i}"))), None)
    if hasattr(a, "dtype"):
        same = a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
    else:
        same = a == b or (a != a and b != b)
    return None if same else f"{where}: {a} and {b}"


def _bytes(array: Any) -> bytes:
    return (array.numpy() if isinstance(array, torch.Tensor) else array).tobytes()


def die_at(n: int, operation: str | None = None, file: str = "") -> Hook:
    """A hook that kills its own process before the n-th operation, or the n-th of one kind on one file."""
    count = 0

    def hook(name: str, path: Path) -> None:
        nonlocal count
        count += operation in (None, name) and file in path.name
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


@dataclass
class Tally:
    """What a case came to. Rows are told by their numbers; `difference` is the first one of any bit."""

    kills: int = 0
    kills_in_storage: int = 0
    runs: int = 0
    rows: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    differing_runs: int = 0
    difference: str | None = None

    def compare(self, overrides: Sequence[str], undisturbed: Path, killed: Path) -> bool:
        """Count a run that was killed and is complete now; returns whether it equals the undisturbed one."""
        self.runs += 1
        for path in sorted(undisturbed.rglob("rows.jsonl")):
            expected, found = (_numbers(at) for at in (path, killed / path.relative_to(undisturbed)))
            self.rows += len(expected)
            self.rows_lost += len(set(expected) - set(found))
            self.rows_doubled += len(found) - len(set(found))
        found_difference = difference(remains(overrides, undisturbed), remains(overrides, killed))
        self.differing_runs += found_difference is not None
        self.difference = self.difference or found_difference
        return found_difference is None


def _numbers(path: Path) -> list[int]:
    """Of all good rows in a file, also of those after a damaged one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [row["seq"] for line in lines if (row := parse_row(line)) is not None]


def storm(name: str, kills: int, seed: int, folder: Path) -> Tally:
    """Lives of one case until `kills` were killed and a run is complete; ends at the first difference."""
    overrides = [*SHORT, *CASES[name]]
    began = time.monotonic()
    assert live(overrides, folder / "undisturbed") == 0
    duration = time.monotonic() - began
    chance = random.Random(f"{name} {seed}")
    tally = Tally()
    while tally.kills < kills:
        outputs = folder / f"killed{tally.runs}"
        while True:
            by_operation = chance.random() < 0.5
            hook = die_at(chance.randint(1, 60)) if by_operation and tally.kills < kills else None
            patience = chance.uniform(0, duration * 0.6) if not by_operation and tally.kills < kills else None
            status = live(overrides, outputs, hook, patience)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                tally.difference = f"a life ended with status {status} instead of a kill"
                return tally
            tally.kills += 1
            tally.kills_in_storage += by_operation
        if not tally.compare(overrides, folder / "undisturbed", outputs):
            return tally
        sys.stdout.write(f"{name}: {tally.kills} kills, run {tally.runs} equal\n")
        sys.stdout.flush()
    return tally


def every_sweep(folder: Path) -> Tally:
    """Value iteration, killed once at each of its rows: a row is a sweep."""
    overrides = [*SHORT, *CASES["value_iteration"]]
    assert live(overrides, folder / "undisturbed") == 0
    rows = remains(overrides, folder / "undisturbed")["s0"]["rows"]
    tally = Tally()
    for n in range(1, sum(row["kind"] == "train" for row in rows) + 1):
        outputs = folder / f"sweep{n}"
        status = live(overrides, outputs, die_at(n, "fsync", "rows.jsonl"))
        tally.kills += status == -signal.SIGKILL
        tally.kills_in_storage += status == -signal.SIGKILL
        if status != -signal.SIGKILL or live(overrides, outputs) != 0:
            tally.difference = f"the life at sweep {n} ended with status {status}, or the one after it did not finish"
        elif tally.compare(overrides, folder / "undisturbed", outputs):
            continue
        return tally
    return tally


COUNTS = ("kills", "kills_in_storage", "runs", "rows", "rows_lost", "rows_doubled", "differing_runs")


def record(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Plain values: the sums, each case, and what it was measured with."""
    facts = provenance(["python", "scripts/kill_storm.py", *sys.argv[1:]], torch.device("cpu"))
    return {
        **{count: sum(getattr(tally, count) for tally in tallies.values()) for count in COUNTS},
        "cases": {name: dataclasses.asdict(tally) for name, tally in tallies.items()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **facts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--kills", type=int, default=50, help="kills of each case (50)")
    many.add_argument("--total", type=int, help="kills shared evenly by the cases, by default one of each algorithm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="a JSON file for the counts, machine and versions")
    options = parser.parse_args()
    cases = options.cases or (CASES if options.total is None else ALGORITHMS)
    tallies: dict[str, Tally] = {}
    for number, name in enumerate(cases):
        kills = options.kills
        if options.total is not None:
            kills = options.total // len(cases) + (number < options.total % len(cases))
        with tempfile.TemporaryDirectory() as folder:
            whole = name == "value_iteration" and options.total is None
            tally = every_sweep(Path(folder)) if whole else storm(name, kills, options.seed, Path(folder))
        verdict = tally.difference or "all equal to the undisturbed run"
        sys.stdout.write(f"{name}: {tally.kills} kills, {verdict}\n")
        tallies[name] = tally
    if options.record is not None:
        storage.make_directory(options.record.parent)
        storage.write_json(options.record, record(tallies))
    return 1 if any(tally.difference for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
