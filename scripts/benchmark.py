"""Training speed of rlexp beside Stable-Baselines3, on the same workloads.

    pip install rlexp[benchmark,mujoco]
    python scripts/benchmark.py --workloads W1 W2b W3 W4 W5 --rounds 5
    python scripts/benchmark.py --workloads sweep start --rounds 3
    python scripts/benchmark.py --workloads W1 --record     # and keep it for docs/performance.md

W1 to W5: steps per CPU-second. Each training run is a process of its own, pinned to one core, with one thread for torch
and for BLAS. Rounds are interleaved (A B, A B, ...) and a ratio is taken within a round, so that a machine which slows
down slows both. The sweep: wall time of ten seeds, from the first process's start to the last one's end, two cores.

rlexp runs as it does from the command line: composed, checked, its rows written and synced, one checkpoint at the end
of the window, no evaluation. Stable-Baselines3 runs with its own logger and Monitor at their defaults, without output.

What remains different: rlexp bounds the gradient's norm of actor and critic apart, Stable-Baselines3 jointly.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import benchmark_start
import benchmark_sweep
import docs_benchmark
from benchmark_workloads import PEERS, PLAIN, WORKLOADS
from docs_page import DOCS, result

PACKAGES = ("rlexp", "stable-baselines3", "torch", "gymnasium", "numpy")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CHILD = Path(__file__).with_name("benchmark_peers.py")


def measure(peer: str, workload: str, steps: int, seed: int, core: int) -> dict[str, float]:
    """One run in a process of its own. Raises SystemExit with what it said where it failed."""
    command = [sys.executable, str(CHILD), peer, workload, str(steps), str(seed), "--core", str(core)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed on {workload}:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_rounds(
    name: str, steps: int, rounds: int, core: int, peers: Sequence[str] = PEERS
) -> list[dict[str, dict[str, float]]]:
    results = []
    for number in range(rounds):
        results.append({})
        for peer in peers:
            results[-1][peer] = measured = measure(peer, name, steps, number, core)
            figures = f"{measured['steps_per_cpu_second']:7.0f} steps per CPU-second, return {measured['return']:.0f}"
            sys.stdout.write(f"{name} round {number + 1}/{rounds}  {peer:<11}  {figures}\n")
            sys.stdout.flush()
        refuse_unequal_work(name, results[-1])
    return results


def refuse_unequal_work(name: str, one: dict[str, dict[str, float]]) -> None:
    """Raises SystemExit where the peers' windows do not hold the same steps and updates."""
    for count in ("env_steps", "updates"):
        done = {peer: figures[count] for peer, figures in one.items()}
        if len(set(done.values())) > 1:
            told = ", ".join(f"{number} of {peer}" for peer, number in done.items())
            raise SystemExit(f"{name}: {count} {told}; not the same workload")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians and extremes over rounds; the ratio is taken within each."""
    speed = {peer: spread([one[peer]["steps_per_cpu_second"] for one in rounds]) for peer in rounds[0]}
    returns = {peer: spread([one[peer]["return"] for one in rounds]) for peer in rounds[0]}
    found = {"ratio": _ratio(rounds, "sb3"), "steps_per_cpu_second": speed, "return": returns, "rounds": rounds}
    return found | ({"gain": _ratio(rounds, PLAIN)} if PLAIN in rounds[0] else {})


def _ratio(rounds: list[dict[str, dict[str, float]]], other: str) -> dict[str, float]:
    """How many times as fast rlexp is."""
    speeds = [{peer: figures["steps_per_cpu_second"] for peer, figures in one.items()} for one in rounds]
    return spread([one["rlexp"] / one[other] for one in speeds])


def summarise_sweep(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The same of a sweep's ways: how many times shorter than Stable-Baselines3's each one's wall time is."""
    ways = {}
    for way in rounds[0]:
        figures = {name: spread([one[way][name] for one in rounds]) for name in rounds[0][way]}
        faster = spread([one["sb3"]["wall_seconds"] / one[way]["wall_seconds"] for one in rounds])
        ways[way] = {**figures, "times_faster": faster}
    return {"ways": ways, "rounds": rounds}


def summarise_start(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians and extremes of both peers' seconds."""
    peers = {
        peer: {name: spread([one[peer][name] for one in rounds]) for name in rounds[0][peer]} for peer in rounds[0]
    }
    return {"peers": peers, "rounds": rounds}


def machine() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return versions | {"python": platform.python_version(), "processor": processor, "cores": str(os.cpu_count())}


def _cell(spread: dict[str, float], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}..{spread['max']:.{digits}f})"


def table(summaries: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| workload | rounds | sb3, steps per CPU-second | rlexp | ratio within a round | return sb3 | return rlexp |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, summary in summaries.items():
        speed, returns = summary["steps_per_cpu_second"], summary["return"]
        cells = [name, str(len(summary["rounds"])), _cell(speed["sb3"], 0), _cell(speed["rlexp"], 0)]
        cells += [_cell(summary["ratio"], 2), _cell(returns["sb3"], 0), _cell(returns["rlexp"], 0)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{name}: {WORKLOADS[name].title}." for name in summaries)])


def sweep_table(summary: dict[str, Any]) -> str:
    lines = [
        "| way | rounds | wall, s | CPU, s | times faster than sb3, wall | return | load before |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, figures in summary["ways"].items():
        cells = [benchmark_sweep.WAYS[way], str(len(summary["rounds"]))]
        cells += [_cell(figures["wall_seconds"], 1), _cell(figures["cpu_seconds"], 1)]
        cells += [_cell(figures["times_faster"], 2), _cell(figures["return"], 0), _cell(figures["load"], 1)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=[*WORKLOADS, "sweep", "start"], default=["W1", "W2b"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="also rlexp without programs (execution.programs=false)")
    parser.add_argument("--steps", type=int, help="environment steps of a run; default: the workload's own")
    parser.add_argument(
        "--core", type=int, default=max(os.sched_getaffinity(0)), help="where W1 to W5 run; not the sweep"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs/benchmark"), help="folder of the JSON file")
    parser.add_argument("--record", action="store_true", help="keep it in docs/results/; scripts/make_docs.py shows it")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(THREADS, "1")
    try:
        where = machine()
    except metadata.PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed; pip install rlexp[benchmark] brings it") from error
    peers = (*PEERS, PLAIN) if options.plain else PEERS
    summaries: dict[str, Any] = {}
    found: dict[str, Any] = {"machine": where, "workloads": summaries}
    for name in options.workloads:
        if name == "sweep":
            steps = options.steps or benchmark_sweep.STEPS
            found["sweep"] = summarise_sweep(benchmark_sweep.run_rounds(steps, options.rounds))
            continue
        if name == "start":
            found["start"] = summarise_start(benchmark_start.run_rounds(options.rounds, options.core))
            continue
        steps = options.steps or WORKLOADS[name].steps
        if steps <= WORKLOADS[name].warm_up:
            raise SystemExit(f"--steps {steps}: {name} needs more than its warm-up of {WORKLOADS[name].warm_up}")
        summaries[name] = summarise(run_rounds(name, steps, options.rounds, options.core, peers))
    from rlexp.storage import make_directory, write_json  # imports torch: after the flags were read

    make_directory(options.outputs)
    path = options.outputs / f"{time.strftime('%Y-%m-%dT%H%M%S')}.json"
    write_json(path, found)
    if options.record:
        titles = {name: workload.title for name, workload in WORKLOADS.items()}
        kept = docs_benchmark.recorded(result(docs_benchmark.NAME), found, titles, time.strftime("%Y-%m-%d"))
        make_directory(DOCS / "results")
        write_json(DOCS / "results" / f"{docs_benchmark.NAME}.json", kept)
    tables = [table(summaries)] if summaries else []
    tables += [sweep_table(found["sweep"])] if "sweep" in found else []
    versions = ", ".join(f"{name} {value}" for name, value in where.items())
    sys.stdout.write("\n" + "\n\n".join([*tables, f"Median (min..max) over rounds. {versions}", str(path)]) + "\n")


if __name__ == "__main__":
    main()
