"""Kill a run again and again and compare what is left with the run that was never killed.

    python scripts/kill_storm.py                  # 50 kills of each case, one at every sweep of value iteration
    python scripts/kill_storm.py --kills 100 ppo

Each life of a run is a forked process that goes on from what the one before left. It dies by SIGKILL, at random: half
of the lives at the n-th operation of the module that writes (so also inside a save), half at a random moment. In the
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
from pathlib import Path
from typing import Any

import torch

from rlexp import storage
from rlexp.experiment.check import Checked, check
from rlexp.experiment.compose import compose_jobs
from rlexp.experiment.display import Display
from rlexp.experiment.members import folders_of
from rlexp.experiment.run import choose_directory, run

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
    return {**left, "checkpoint": storage.load_tree(newest), "name": newest.name}


def _of_seed(folder: Path) -> dict[str, Any]:
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in storage.read_rows(folder / "rows.jsonl")
    ]
    final = folder / "weights" / "final"
    return {"rows": rows, "weights": storage.load_tree(final) if final.exists() else {}}


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


def storm(name: str, kills: int, seed: int, folder: Path) -> tuple[int, str | None]:
    """Lives of one case until `kills` were killed and a run is complete. Returns kills and the first difference."""
    overrides = [*SHORT, *CASES[name]]
    began = time.monotonic()
    assert live(overrides, folder / "undisturbed") == 0
    duration = time.monotonic() - began
    expected = remains(overrides, folder / "undisturbed")
    chance = random.Random(seed)
    killed, attempt = 0, 0
    while killed < kills:
        outputs = folder / f"killed{attempt}"
        attempt += 1
        while True:
            by_operation = chance.random() < 0.5
            hook = die_at(chance.randint(1, 60)) if by_operation and killed < kills else None
            patience = chance.uniform(0, duration * 0.6) if not by_operation and killed < kills else None
            status = live(overrides, outputs, hook, patience)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                return killed, f"a life ended with status {status} instead of a kill"
            killed += 1
        found = difference(expected, remains(overrides, outputs))
        if found:
            return killed, found
        sys.stdout.write(f"{name}: {killed} kills, run {attempt} equal\n")
        sys.stdout.flush()
    return killed, None


def every_sweep(folder: Path) -> tuple[int, str | None]:
    """Value iteration, killed once at each of its rows: a row is a sweep."""
    overrides = [*SHORT, *CASES["value_iteration"]]
    assert live(overrides, folder / "undisturbed") == 0
    expected = remains(overrides, folder / "undisturbed")
    sweeps = sum(row["kind"] == "train" for row in expected["s0"]["rows"])
    for n in range(1, sweeps + 1):
        outputs = folder / f"sweep{n}"
        status = live(overrides, outputs, die_at(n, "fsync", "rows.jsonl"))
        if status != -signal.SIGKILL:
            return n, f"the life at sweep {n} ended with status {status}"
        if live(overrides, outputs) != 0:
            return n, f"the run killed at sweep {n} did not finish"
        found = difference(expected, remains(overrides, outputs))
        if found:
            return n, found
    return sweeps, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--kills", type=int, default=50, help="kills of each case (50)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            if name == "value_iteration":
                kills, found = every_sweep(Path(folder))
            else:
                kills, found = storm(name, options.kills, options.seed, Path(folder))
        sys.stdout.write(f"{name}: {kills} kills, {'all equal to the undisturbed run' if found is None else found}\n")
        bad += found is not None
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
