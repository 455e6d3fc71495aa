"""Does a long run grow? Memory, open files, threads and CPU time per step of real runs of a million steps.

    python scripts/soak.py                                      # PPO, then DQN
    python scripts/soak.py dqn --env-steps 300000
    python scripts/soak.py --record docs/results/soak.json

A run is `rlexp` in a process of its own; at each of its rows, a hundred of them, /proc is asked how it stands. Episodes
of the environment have one length whatever is learned, so a step costs the same throughout. Evaluations and checkpoints
go on as in any run. After the warm-up, a fifth of the run, resident memory must grow by less than 1 MiB in 100,000
steps (least squares), open files and threads (the fewest, for a file is open while it is written) must stay as many,
and the last fifth must not take more CPU time a step than the first one, up to what the machine's neighbours do (10%).
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlexp.experiment.wandb_process import Follower
from rlexp.storage import write_json

COMMON = ["env=mountain_car", "env.time_limit=50", "logger=local", "display=none"]
CASES = {"ppo": ["algorithm=ppo"], "dqn": ["algorithm=dqn"]}
WARM_UP = 0.2  # share of a run: buffers fill, allocators find their size
GROWTH = 1.0  # MiB in 100,000 steps
SLOWER = 1.1  # CPU time of the last fifth by that of the first

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """How a process stands at a row."""

    env_steps: int
    memory: float  # resident, MiB
    files: int
    threads: int
    cpu: float  # seconds since its start


def soak(
    words: Sequence[str], env_steps: int, outputs: Path, say: Callable[[str], None] = lambda text: None
) -> list[Sample]:
    """Samples of a run of so many steps. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "rlexp", *COMMON, *words, f"total_env_steps={env_steps}", f"outputs={outputs}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    samples: list[Sample] = []
    try:
        follower: Follower | None = None
        while process.poll() is None:
            found = next(outputs.glob("*/*/*/rows.jsonl"), None)
            if follower is None and found is not None:
                follower = Follower(found)
            rows = [row for row in follower.new_rows() if row["kind"] == "train"] if follower else []
            if rows:
                sample = _sample(process.pid, rows[-1]["env_steps"])
                if sample is not None:
                    samples.append(sample)
                    say(f"{sample.env_steps:>9,} of {env_steps:,} steps, {sample.memory:.1f} MiB")
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return samples


def _sample(pid: int, env_steps: int) -> Sample | None:
    """None where the process has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        resident = int((folder / "statm").read_text().split()[1]) * PAGE / 2**20
        files, threads = len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))
    except OSError:
        return None
    return Sample(env_steps, resident, files, threads, (int(fields[11]) + int(fields[12])) / TICKS)


def verdict(samples: Sequence[Sample]) -> dict[str, Any]:
    """Plain values; `faults` is empty where nothing grew."""
    end = samples[-1].env_steps
    warm = [sample for sample in samples if sample.env_steps >= WARM_UP * end]
    steps, memory = np.array([[sample.env_steps, sample.memory] for sample in warm]).T
    growth = float(np.polyfit(steps / 1e5, memory, 1)[0])
    first, last = warm[: len(warm) // 5 + 1], warm[-len(warm) // 5 - 1 :]
    cpu_first, cpu_last = _cpu_per_step(first), _cpu_per_step(last)
    found = {
        "env_steps": end,
        "samples": len(samples),
        "memory_mib": [round(warm[0].memory, 2), round(warm[-1].memory, 2)],
        "memory_growth_mib_per_100000_steps": round(growth, 4),
        "files_first_and_last_fifth": [min(sample.files for sample in part) for part in (first, last)],
        "threads_first_and_last_fifth": [min(sample.threads for sample in part) for part in (first, last)],
        "cpu_us_per_step_first_fifth": round(1e6 * cpu_first, 2),
        "cpu_us_per_step_last_fifth": round(1e6 * cpu_last, 2),
    }
    faults = []
    if growth >= GROWTH:
        faults.append(f"memory grows by {growth:.2f} MiB in 100,000 steps")
    for what in ("files", "threads"):
        before, after = found[f"{what}_first_and_last_fifth"]
        if after != before:
            faults.append(f"{after} {what} at the end, {before} at first")
    if cpu_last > SLOWER * cpu_first:
        faults.append(f"a step takes {1e6 * cpu_last:.1f} us of CPU time at the end, {1e6 * cpu_first:.1f} at first")
    return {**found, "faults": faults}


def _cpu_per_step(part: Sequence[Sample]) -> float:
    """In seconds."""
    return (part[-1].cpu - part[0].cpu) / (part[-1].env_steps - part[0].env_steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--env-steps", type=int, default=1_000_000, help="of each run (1,000,000)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the results as JSON")
    options = parser.parse_args()
    live = sys.stderr.isatty()
    results: dict[str, Any] = {}
    for name in options.cases or CASES:

        def say(text: str, name: str = name) -> None:
            sys.stderr.write(f"\r{name}: {text}" if live else f"{name}: {text}\n")
            sys.stderr.flush()

        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            samples = soak(CASES[name], options.env_steps, Path(folder), say)
        results[name] = {**verdict(samples), "wall_s": round(time.monotonic() - began, 1)}
        line_end = "\n" if live else ""
        sys.stdout.write(f"{line_end}{name}: {results[name]}\n")
        sys.stdout.flush()
    if options.record is not None:
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        options.record.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.record, {"command": COMMON, "machine": machine, "runs": results})
    return 1 if any(result["faults"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
