"""One training run of one peer in this process; its figures are the last line of stdout, as JSON.

    python scripts/benchmark_peers.py rlexp W1 30720 0 --core 1

Steps are divided by the CPU time of this process from the end of the warm-up to the end of the last update: imports
and set-up are outside, and so is what other processes on the machine take. Updates are counted where they are made,
so that whoever compares can see whether both peers did the same work.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark_workloads import PEERS, PLAIN, WORKLOADS, Workload


class Window:
    """CPU time, environment steps and updates from the end of the warm-up to the end of the last update.

    The clock is read twice: it is a system call, and a reading every turn would cost some peers 4 per cent.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._begun: tuple[int, int, float] | None = None
        self.result: dict[str, float] = {}

    def between_updates(self, env_steps: int, updates: int) -> None:
        if self._begun is None and env_steps >= self._warm_up:
            self._begun = (env_steps, updates, time.process_time())

    def end(self, env_steps: int, updates: int) -> None:
        assert self._begun is not None, "the run is shorter than its warm-up"
        first_step, first_update, since = self._begun
        steps, seconds = env_steps - first_step, time.process_time() - since
        self.result = {
            "env_steps": steps,
            "updates": updates - first_update,
            "cpu_seconds": seconds,
            "steps_per_cpu_second": steps / seconds,
        }


def rlexp_settings(steps: int, outputs: str | Path) -> list[str]:
    """What a measured run has beside its workload: rows, one checkpoint at its end, one thread, nothing shown."""
    return [
        f"total_env_steps={steps}", f"outputs={outputs}", f"checkpoint.interval={steps}", "evaluation=none",
        "logger=local", "execution.threads=1", "display=none",
    ]  # fmt: skip


def run_rlexp(workload: Workload, steps: int, seed: int, *more: str) -> dict[str, float]:
    """The command's own path; the window is a display, which the loop tells of every turn."""
    from rlexp.experiment.display import Display
    from rlexp.experiment.jobs import checked_jobs
    from rlexp.experiment.run import run
    from rlexp.storage.rows import read_rows

    window = Window(workload.warm_up)

    class Probe(Display):
        def __call__(self, progress: Any, update: Any, state: Any) -> str | None:
            window.between_updates(progress.env_steps, progress.updates)
            if progress.env_steps >= steps:
                window.end(progress.env_steps, progress.updates)
            return None

    with tempfile.TemporaryDirectory() as outputs:
        words = [*workload.rlexp, *rlexp_settings(steps, outputs), f"seed={seed}", *more]
        (job,) = checked_jobs(words, multirun=False)
        outcome = run(job, Probe("none"))
        rows = read_rows(outcome.directory / "rows.jsonl")
    return window.result | {"return": last_return(rows)}


def last_return(rows: list[dict[str, Any]]) -> float:
    """Mean return of the last hundred episodes or a few more: a peer that is fast and does not learn would show."""
    total = count = 0.0
    for row in reversed(rows):
        if count < 100 and "episode/count" in row:
            total += row["episode/return"] * row["episode/count"]
            count += row["episode/count"]
    return total / count


def run_sb3(workload: Workload, steps: int, seed: int) -> dict[str, float]:
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(1)
    window = Window(workload.warm_up)
    updates = 0

    def count(*_: Any) -> None:
        nonlocal updates
        updates += 1

    register_optimizer_step_post_hook(count)

    class Probe(BaseCallback):
        def _on_rollout_start(self) -> None:
            window.between_updates(self.num_timesteps, updates)

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            window.end(self.num_timesteps, updates)

    env = make_vec_env(workload.env_id, workload.sb3_num_envs, seed=seed)
    kind = getattr(stable_baselines3, workload.sb3_class)
    model = kind("MlpPolicy", env, seed=seed, device="cpu", verbose=0, **workload.sb3)
    model.learn(steps, callback=Probe())
    returns = [episode["r"] for episode in model.ep_info_buffer]
    return window.result | {"return": sum(returns) / len(returns)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=[*PEERS, PLAIN])
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("steps", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--core", type=int, help="the only core to run on")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    given = (WORKLOADS[options.workload], options.steps, options.seed)
    more = ["execution.programs=false"] if options.peer == PLAIN else []
    result = run_sb3(*given) if options.peer == "sb3" else run_rlexp(*given, *more)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
