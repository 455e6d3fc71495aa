"""From the start of a process to the first training step of PPO on CartPole-v1 (part of scripts/benchmark.py).

    python scripts/benchmark_start.py rlexp 12345.6     # as a child: the clock's reading when it was started

rlexp is composed, checked, and has its folder and its row file by then; its first turn holds two steps and an update,
Stable-Baselines3's first step no update.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

STEPS = (
    "experience.num_envs=1",
    "experience.rollout_length=2",
    "algorithm.num_minibatches=1",
    "algorithm.num_epochs=1",
)


def measure(peer: str, core: int) -> dict[str, float]:
    """Wall and CPU seconds of one start."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, peer, str(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} did not start:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_rounds(rounds: int, core: int) -> list[dict[str, dict[str, float]]]:
    results = []
    for number in range(rounds):
        results.append({peer: measure(peer, core) for peer in ("sb3", "rlexp")})
        told = ", ".join(f"{peer} {one['cpu_seconds']:.2f} CPU-s" for peer, one in results[-1].items())
        sys.stdout.write(f"start round {number + 1}/{rounds}  {told}\n")
        sys.stdout.flush()
    return results


def _stop(since: float) -> None:
    figures = {"wall_seconds": time.monotonic() - since, "cpu_seconds": time.process_time()}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)


def start_rlexp(since: float) -> None:
    from rlexp.cli.common import lasting_imports

    with lasting_imports():  # as the command does
        from rlexp.experiment.display import Display
        from rlexp.experiment.jobs import checked_jobs
        from rlexp.experiment.run import run

    class Probe(Display):
        def __call__(self, progress: Any, update: Any, state: Any) -> str | None:
            _stop(since)
            return None

    with tempfile.TemporaryDirectory() as outputs:
        words = ["algorithm=ppo", "env=cartpole", *STEPS, f"outputs={outputs}", "logger=local", "display=none"]
        (job,) = checked_jobs(words, multirun=False)
        run(job, Probe("none"))


def start_sb3(since: float) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    class Probe(BaseCallback):
        def _on_step(self) -> bool:
            _stop(since)
            return True

    PPO("MlpPolicy", "CartPole-v1", device="cpu").learn(1, callback=Probe())


if __name__ == "__main__":
    {"rlexp": start_rlexp, "sb3": start_sb3}[sys.argv[1]](float(sys.argv[2]))
