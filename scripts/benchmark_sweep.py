"""Ten seeds of W1 in whole wall time, start-up included, on two cores (part of scripts/benchmark.py)."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmark_peers import last_return, rlexp_settings
from benchmark_workloads import WORKLOADS

WORKLOAD = "W1"
SEEDS = range(10)
STEPS = 40_960  # of each seed
AT_ONCE = 2  # processes, and the cores that every way may use
CHILD = Path(__file__).with_name("benchmark_peers.py")
WAYS = {
    "sb3": "Stable-Baselines3, a process a seed, two at once",
    "joblib": "rlexp, a process a seed, two at once",
    "stacked": "rlexp, all seeds stacked, one process on one core",
    "stacked_two": "rlexp, two processes of five stacked seeds",
}


def rlexp_words(way: str, seeds: Sequence[int]) -> list[str]:
    """What a person types after `rlexp` for each way, but for what a measured run has beside it."""
    side_by_side = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={AT_ONCE}"]
    if way == "joblib":
        return ["-m", f"seed={','.join(map(str, seeds))}", *side_by_side]
    if way == "stacked":
        return [f"seeds={_listed(seeds)}"]
    half = len(seeds) // AT_ONCE
    return ["-m", f"seeds={_listed(seeds[:half])},{_listed(seeds[half:])}", *side_by_side]


def _listed(seeds: Sequence[int]) -> str:
    return f"[{','.join(map(str, seeds))}]"


def run_way(way: str, steps: int) -> dict[str, float]:
    """Wall and CPU seconds of one way, the load before it, and the mean over seeds of the last episodes' return."""
    load = os.getloadavg()[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    since = time.perf_counter()
    returns = _sb3(steps) if way == "sb3" else _rlexp(way, steps)
    wall = time.perf_counter() - since
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if len(returns) != len(SEEDS):
        raise SystemExit(f"sweep, {way}: {len(returns)} of {len(SEEDS)} seeds finished")
    return {"wall_seconds": wall, "cpu_seconds": cpu, "return": sum(returns) / len(returns), "load": load}


def _sb3(steps: int) -> list[float]:
    def one(seed: int) -> float:
        said = _said([sys.executable, str(CHILD), "sb3", WORKLOAD, str(steps), str(seed)])
        return float(json.loads(said.splitlines()[-1])["return"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, SEEDS))


def _rlexp(way: str, steps: int) -> list[float]:
    from rlexp.storage.rows import read_rows

    with tempfile.TemporaryDirectory() as outputs:
        words = [*WORKLOADS[WORKLOAD].rlexp, *rlexp_settings(steps, outputs), *rlexp_words(way, SEEDS)]
        _said([sys.executable, "-m", "rlexp", *words])
        return [last_return(read_rows(rows)) for rows in Path(outputs).rglob("s*/rows.jsonl")]


def _said(command: list[str]) -> str:
    """Stdout of a command. Raises SystemExit with what it said where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def run_rounds(steps: int, rounds: int) -> list[dict[str, dict[str, float]]]:
    """Every way in turn, again and again."""
    import rlexp.storage  # noqa: F401  (before the first clock: reading rows afterwards imports nothing)

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[-AT_ONCE:]))  # processes inherit it
    results = []
    for number in range(rounds):
        results.append({})
        for way in WAYS:
            results[-1][way] = measured = run_way(way, steps)
            figures = f"{measured['wall_seconds']:6.1f} s wall, {measured['cpu_seconds']:6.1f} s CPU"
            more = f"return {measured['return']:.0f}, load before {measured['load']:.1f}"
            sys.stdout.write(f"sweep round {number + 1}/{rounds}  {way:<11}  {figures}, {more}\n")
            sys.stdout.flush()
    os.sched_setaffinity(0, allowed)
    return results
