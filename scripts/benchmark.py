"""Training steps per CPU-second of rlexp beside Stable-Baselines3, on the same workloads.

    pip install rlexp[benchmark]
    python scripts/benchmark.py --workloads W1 W2b --rounds 5

Each training run is a process of its own, pinned to one core, with one thread for torch and for BLAS. Rounds are
interleaved (A B, A B, ...) and a ratio is taken within a round, so that a machine which slows down slows both. Steps
are divided by the CPU time of the training process, from the end of the warm-up to the end of the last update: imports
and set-up are outside, and so is what other processes on the machine take.

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
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PEERS = ("sb3", "rlexp")
PACKAGES = ("rlexp", "stable-baselines3", "torch", "gymnasium", "numpy")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Workload:
    """The same training run in the words of each peer. `steps` is a multiple of the steps between updates."""

    title: str
    steps: int
    warm_up: int  # environment steps before the window; learning starts within
    rlexp: tuple[str, ...]
    env_id: str
    sb3_class: str
    sb3_num_envs: int
    sb3: dict[str, Any]


def _dqn(title: str, steps: int, collection_steps: int) -> Workload:
    """The target network is copied every 500 environment steps: rlexp counts updates, Stable-Baselines3 steps."""
    return Workload(
        title,
        steps,
        1_000,
        (
            "algorithm=dqn", "env=cartpole", "network.hidden=[120,84]", "network.activation=relu",
            "experience.num_envs=1", "experience.capacity=10000", "experience.batch_size=128",
            "experience.learning_starts=500", f"experience.collection_steps={collection_steps}",
            "experience.updates_per_collection=1", f"algorithm.target_update_interval={500 // collection_steps}",
            "algorithm.gamma=0.99", "algorithm.tau=1.0", "algorithm.huber_delta=1.0", "exploration.epsilon.end=0.05",
            "exploration.epsilon.fraction=0.2", "optimizer.learning_rate=2.5e-4", "optimizer.max_grad_norm=10.0",
            "optimizer.rule.eps=1e-8",
        ),
        "CartPole-v1",
        "DQN",
        1,
        {
            "learning_rate": 2.5e-4, "buffer_size": 10_000, "learning_starts": 500, "batch_size": 128, "gamma": 0.99,
            "tau": 1.0, "train_freq": collection_steps, "gradient_steps": 1, "target_update_interval": 500,
            "exploration_fraction": 0.2, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.05,
            "max_grad_norm": 10.0, "policy_kwargs": {"net_arch": [120, 84]},
        },
    )  # fmt: skip


WORKLOADS = {
    "W1": Workload(
        "PPO, CartPole-v1, 8 x 128 steps, 4 epochs of 4 minibatches, MLP 64-64 tanh",
        30_720,
        4_096,
        (
            "algorithm=ppo", "env=cartpole", "network.hidden=[64,64]", "network.activation=tanh",
            "experience.num_envs=8", "experience.rollout_length=128", "algorithm.gamma=0.99",
            "algorithm.num_epochs=4", "algorithm.num_minibatches=4", "algorithm.clip_ratio=0.2",
            "algorithm.value_coef=0.5", "algorithm.entropy_coef=0.0", "estimator.lambda_=0.95",
            "optimizer.learning_rate=2.5e-4", "optimizer.max_grad_norm=0.5", "optimizer.rule.eps=1e-5",
        ),
        "CartPole-v1",
        "PPO",
        8,
        {
            "learning_rate": 2.5e-4, "n_steps": 128, "batch_size": 256, "n_epochs": 4, "gamma": 0.99,
            "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        },
    ),
    "W2": _dqn("DQN, CartPole-v1, 1 environment, batch 128, an update every step, MLP 120-84", 5_000, 1),
    "W2b": _dqn("DQN, CartPole-v1, 1 environment, batch 128, an update every 10 steps, MLP 120-84", 20_000, 10),
    "W3": Workload(
        "SAC, Pendulum-v1, 1 environment, batch 256, an update every step, MLP 256-256",
        2_000,
        500,
        (
            "algorithm=sac", "env=pendulum", "network.hidden=[256,256]", "network.activation=relu",
            "experience.num_envs=1", "experience.capacity=100000", "experience.batch_size=256",
            "experience.learning_starts=100", "experience.collection_steps=1", "experience.updates_per_collection=1",
            "algorithm.gamma=0.99", "algorithm.tau=0.005", "algorithm.target_entropy=-1.0",
            "algorithm.initial_temperature=1.0", "optimizer.learning_rate=3e-4", "optimizer.max_grad_norm=null",
            "optimizer.rule.eps=1e-8",
        ),
        "Pendulum-v1",
        "SAC",
        1,
        {
            "learning_rate": 3e-4, "buffer_size": 100_000, "learning_starts": 100, "batch_size": 256, "gamma": 0.99,
            "tau": 0.005, "train_freq": 1, "gradient_steps": 1, "ent_coef": "auto", "target_entropy": "auto",
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
}  # fmt: skip


class Window:
    """CPU time and environment steps from the end of the warm-up to the end of the last update.

    The clock is read twice: it is a system call, and a reading every turn would cost some peers 4 per cent.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._begun: tuple[int, float] | None = None
        self.result: dict[str, float] = {}

    def between_updates(self, env_steps: int) -> None:
        if self._begun is None and env_steps >= self._warm_up:
            self._begun = (env_steps, time.process_time())

    def end(self, env_steps: int) -> None:
        assert self._begun is not None, "the run is shorter than its warm-up"
        steps, seconds = env_steps - self._begun[0], time.process_time() - self._begun[1]
        self.result = {"env_steps": steps, "cpu_seconds": seconds, "steps_per_cpu_second": steps / seconds}


# ------------------------------------------------------------------------------------------------ one run of a peer


def run_rlexp(workload: Workload, steps: int, seed: int) -> dict[str, float]:
    """The command's own path; the window is a display, which the loop tells of every turn."""
    from rlexp.experiment.display import Display
    from rlexp.experiment.jobs import checked_jobs
    from rlexp.experiment.run import run
    from rlexp.storage import read_rows

    window = Window(workload.warm_up)

    class Probe(Display):
        def __call__(self, progress: Any, update: Any, state: Any) -> str | None:
            window.between_updates(progress.env_steps)
            if progress.env_steps >= steps:
                window.end(progress.env_steps)
            return None

    with tempfile.TemporaryDirectory() as outputs:
        settings = (
            f"seed={seed}", f"total_env_steps={steps}", f"outputs={outputs}", "evaluation=none", "logger=local",
            f"checkpoint.interval={steps}", "execution.threads=1", "display=none",
        )  # fmt: skip
        (job,) = checked_jobs([*workload.rlexp, *settings], multirun=False)
        outcome = run(job, Probe("none"))
        rows = read_rows(outcome.directory / "rows.jsonl")
    return window.result | {"return": _last_return(rows)}


def _last_return(rows: list[dict[str, Any]]) -> float:
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

    torch.set_num_threads(1)
    window = Window(workload.warm_up)

    class Probe(BaseCallback):
        def _on_rollout_start(self) -> None:
            window.between_updates(self.num_timesteps)

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            window.end(self.num_timesteps)

    env = make_vec_env(workload.env_id, workload.sb3_num_envs, seed=seed)
    kind = getattr(stable_baselines3, workload.sb3_class)
    model = kind("MlpPolicy", env, seed=seed, device="cpu", verbose=0, **workload.sb3)
    model.learn(steps, callback=Probe())
    returns = [episode["r"] for episode in model.ep_info_buffer]
    return window.result | {"return": sum(returns) / len(returns)}


# ------------------------------------------------------------------------------------------------------ the rounds


def child(peer: str, workload: str, steps: int, seed: int, core: int) -> None:
    """One run in this process; its figures are the last line of stdout."""
    os.sched_setaffinity(0, {core})
    result = {"rlexp": run_rlexp, "sb3": run_sb3}[peer](WORKLOADS[workload], steps, seed)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


def measure(peer: str, workload: str, steps: int, seed: int, core: int) -> dict[str, float]:
    """One run in a process of its own. Raises SystemExit with what it said where it failed."""
    arguments = [peer, workload, str(steps), str(seed), str(core)]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed on {workload}:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_rounds(name: str, steps: int, rounds: int, core: int) -> list[dict[str, dict[str, float]]]:
    results = []
    for number in range(rounds):
        results.append({})
        for peer in PEERS:
            results[-1][peer] = measured = measure(peer, name, steps, number, core)
            figures = f"{measured['steps_per_cpu_second']:7.0f} steps per CPU-second, return {measured['return']:.0f}"
            sys.stdout.write(f"{name} round {number + 1}/{rounds}  {peer:<5}  {figures}\n")
            sys.stdout.flush()
    return results


def summarise(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians and extremes over rounds; the ratio is taken within each."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    speed = {peer: spread([one[peer]["steps_per_cpu_second"] for one in rounds]) for peer in PEERS}
    returns = {peer: spread([one[peer]["return"] for one in rounds]) for peer in PEERS}
    ratios = [one["rlexp"]["steps_per_cpu_second"] / one["sb3"]["steps_per_cpu_second"] for one in rounds]
    return {"ratio": spread(ratios), "steps_per_cpu_second": speed, "return": returns, "rounds": rounds}


def machine() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return versions | {"python": platform.python_version(), "processor": processor, "cores": str(os.cpu_count())}


def table(summaries: dict[str, dict[str, Any]], where: dict[str, str]) -> str:
    def cell(spread: dict[str, float], digits: int) -> str:
        return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}..{spread['max']:.{digits}f})"

    lines = [
        "| workload | rounds | sb3, steps per CPU-second | rlexp | ratio within a round | return sb3 | return rlexp |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, summary in summaries.items():
        speed, returns = summary["steps_per_cpu_second"], summary["return"]
        cells = [name, str(len(summary["rounds"])), cell(speed["sb3"], 0), cell(speed["rlexp"], 0)]
        cells += [cell(summary["ratio"], 2), cell(returns["sb3"], 0), cell(returns["rlexp"], 0)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Median (min..max) over rounds.", *(f"{name}: {WORKLOADS[name].title}." for name in summaries)]
    return "\n".join([*lines, ", ".join(f"{name} {value}" for name, value in where.items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["W1", "W2b"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="environment steps of a run; default: the workload's own")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="core that all are pinned to")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/benchmark"), help="folder of the JSON file")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        peer, workload, *numbers = options.child
        child(peer, workload, *map(int, numbers))
        return
    try:
        where = machine()
    except metadata.PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed; pip install rlexp[benchmark] brings it") from error
    summaries = {}
    for name in options.workloads:
        steps = options.steps or WORKLOADS[name].steps
        if steps <= WORKLOADS[name].warm_up:
            raise SystemExit(f"--steps {steps}: {name} needs more than its warm-up of {WORKLOADS[name].warm_up}")
        summaries[name] = summarise(run_rounds(name, steps, options.rounds, options.core))
    from rlexp.storage import make_directory, write_json  # imports torch: after the flags were read

    make_directory(options.outputs)
    path = options.outputs / f"{time.strftime('%Y-%m-%dT%H%M%S')}.json"
    write_json(path, {"machine": where, "workloads": summaries})
    sys.stdout.write(f"\n{table(summaries, where)}\n{path}\n")


if __name__ == "__main__":
    main()
