"""Malformed command lines made from the configurations themselves, and whether each is refused as it should be.

    python scripts/config_faults.py                # all of them, in this process, with a count for each kind

Every one must end with exit code 2 and one line on stderr, in under five seconds, and leave nothing behind. The kinds:
each key with a typing error (one letter left out, doubled, replaced, or two exchanged; also behind + and ++), each
field with a wrong type, each bounded field out of its range, each group with an unknown choice, each pair rule.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from rlexp.cli.check import command
from rlexp.cli.common import guarded
from rlexp.experiment.compose import compose_jobs
from rlexp.experiment.schema import config_fields
from rlexp.experiment.settings import Settings
from rlexp.experiment.targets import resolve
from rlexp.ranges import Range

DEADLINE = 5.0
BASES: dict[str, list[str]] = {
    "ppo": [],
    "ppo_n_step": ["estimator=n_step"],
    "dqn": ["algorithm=dqn"],
    "a2c": ["algorithm=a2c"],
    "reinforce": ["algorithm=reinforce"],
    "cnn": [
        "env.id=Image-v0",
        "env.declared={of: Image-v0, observation: {kind: box, shape: [8, 8, 1]}, action: {kind: "
        "discrete, n: 2}, time_limit: 10, has_model: false}",
        "network=cnn",
    ],
    "sac": ["algorithm=sac", "env=pendulum"],
    "value_iteration": ["algorithm=value_iteration", "env=taxi"],
    "rmsprop": ["optimizer=rmsprop"],
    "sgd": ["optimizer=sgd"],
}
FREE = ("env.declared", "env.kwargs", "optimizer.networks")  # mappings whose keys are not ours to name


def needs_q(reward: Any, discount: Any, value: Any, next_value: Any, done: Any, log_rho: Any) -> None:
    """An estimator that would have to be given action values."""


needs_q.of = "action_value"  # type: ignore[attr-defined]


class Fault(NamedTuple):
    kind: str
    arguments: list[str]


def flatten(node: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration by its dotted name, parents too."""
    for key, value in node.items():
        path = f"{where}.{key}" if where else key
        yield path, value
        if isinstance(value, Mapping) and path not in FREE:
            yield from flatten(value, path)


def typing_errors(word: str, chance: random.Random) -> list[str]:
    """One neighbour of each kind at edit distance one (two letters exchanged count as one)."""
    i = chance.randrange(len(word))
    j = chance.randrange(max(1, len(word) - 1))
    neighbours = {
        word[:i] + word[i + 1 :],
        word[:i] + word[i] + word[i:],
        word[:i] + ("x" if word[i] != "x" else "y") + word[i + 1 :],
        word[:j] + word[j + 1 : j + 2] + word[j] + word[j + 2 :],
    }
    return sorted(n for n in neighbours if n and n != word and n.replace("_", "a").isalnum() and not n[0].isdigit())


def keys_with_errors(seed: int) -> Iterator[Fault]:
    chance = random.Random(seed)
    seen = set()
    for base in BASES.values():
        config = compose_jobs(base)[0].config
        siblings: dict[str, set[str]] = {}
        for path, _ in flatten(config):
            parent, _, key = path.rpartition(".")
            siblings.setdefault(parent, set()).add(key)
        for path, _ in flatten(config):
            if path in seen:
                continue
            seen.add(path)
            parent, _, key = path.rpartition(".")
            for wrong in typing_errors(key, chance):
                if wrong not in siblings[parent]:
                    name = f"{parent}.{wrong}" if parent else wrong
                    prefix = chance.choice(["", "+", "++"])
                    yield Fault("typing error", [*base, f"{prefix}{name}=1"])


def wrong_types() -> Iterator[Fault]:
    """A value of a type that the field does not take, for every field that is not free text."""
    seen = set()
    for base in BASES.values():
        for path, value in flatten(compose_jobs(base)[0].config):
            if path in seen or path.startswith("env.declared") or path in ("algorithm", "experiment"):
                continue
            seen.add(path)
            if isinstance(value, bool):
                wrong = ["maybe", "1.5"]
            elif isinstance(value, (int, float)):
                wrong = ["abc", "[1]", "true"]
            elif isinstance(value, list):
                wrong = ["3", "{a: 1}"]
            elif isinstance(value, Mapping):
                wrong = ["[1]"]
            elif isinstance(value, str):
                wrong = ["[1]", "{a: 1}"]
            else:
                wrong = ["{a: 1}"]  # null stands for numbers, texts, lists and parts
            for text in wrong:
                yield Fault("wrong type", [*base, f"++{path}={text}"])


def out_of_range() -> Iterator[Fault]:
    """Values beyond each end of every declared range."""
    seen = set()
    for base in BASES.values():
        for path, limits in ranges(compose_jobs(base)[0].config):
            if path not in seen:
                seen.add(path)
                low = limits.low if limits.open_low else limits.low - 1
                yield Fault("out of range", [*base, f"{path}={low:g}"])
                if limits.high != float("inf"):
                    yield Fault("out of range", [*base, f"{path}={limits.high + 1:g}"])


def ranges(config: Mapping[str, Any]) -> Iterator[tuple[str, Range]]:
    """Every bounded field that a configuration holds, by its dotted name."""

    def walk(node: Any, hint: Any, where: str) -> Iterator[tuple[str, Range]]:
        annotated = get_origin(hint) is Annotated
        limits = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Range)), None) if annotated else None
        inner = get_args(hint)[0] if annotated else hint
        if isinstance(node, Mapping):
            for key, field in fields(node, inner, where).items():
                if key in node:
                    yield from walk(node[key], field, f"{where}.{key}" if where else key)
        elif limits is not None:
            yield where, limits
        elif get_origin(inner) in (Union, UnionType):
            for option in get_args(inner):
                yield from walk(node, option, where)

    def fields(node: Mapping[str, Any], hint: Any, where: str) -> dict[str, Any]:
        if "_target_" in node:
            return {key: field for key, (field, _) in config_fields(resolve(node["_target_"], where)).items()}
        kinds = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
        return get_type_hints(kinds[0], include_extras=True) if kinds else {}

    yield from walk(config, Settings, "")


def unknown_choices() -> Iterator[Fault]:
    for group in ("algorithm", "env", "experience", "estimator", "baseline", "network", "optimizer", "evaluation"):
        yield Fault("unknown choice", [f"{group}=nonsense"])
    for group in ("exploration", "logger", "execution", "debug", "experiment", "normalization"):
        yield Fault("unknown choice", [f"{group}=nonsense"])
    for typo in ("algorithm=pp", "algorithm=dqnn", "env=cartpol", "network=mpl", "experiment=dqn_cartpol"):
        yield Fault("unknown choice", [typo])


IMAGES_DECLARED = "env.declared={of: CartPole-v1, observation: {kind: box, shape: [8, 8, 1]}, action: {kind: discrete, n: 2}, time_limit: 10, has_model: false}"  # fmt: skip  # noqa: E501

PAIRS: dict[str, list[list[str]]] = {
    "action_space": [
        ["algorithm=dqn", "env=pendulum"],
        ["algorithm=dqn", "env.id=MountainCarContinuous-v0"],
        ["algorithm=sac"],
        ["algorithm=sac", "env=acrobot"],
        ["algorithm=sac", "env=taxi", "network=mlp"],
        ["algorithm=dqn", "env=mountain_car_continuous", "experience.num_envs=1"],
    ],
    "bounded_actions": [
        ["algorithm=sac", "env=pendulum", "env.declared.action.high=inf"],
        ["algorithm=sac", "env=pendulum", "env.declared.action.low=-inf"],
    ],
    "experience_kind": [
        ["experience=replay"],
        ["algorithm=dqn", "experience=rollout"],
        ["experience=sweep"],
        ["algorithm=a2c", "experience=episodes"],
        ["algorithm=reinforce", "experience=short_rollout"],
        ["algorithm=sac", "env=pendulum", "experience=rollout"],
        ["algorithm=value_iteration", "env=taxi", "experience=rollout"],
    ],
    "needs_model": [["algorithm=value_iteration"], ["algorithm=value_iteration", "env=acrobot"]],
    "seeds_of_a_sweep": [["algorithm=value_iteration", "env=taxi", "seeds=[0,1]"]],
    "normalised_experience": [
        ["algorithm=value_iteration", "env=taxi", "normalization=rewards"],
        ["normalization=observations", "normalization.observation_clip=null"],
    ],
    "normalised_observation": [
        ["normalization=observations", "network=cnn", IMAGES_DECLARED],
        ["env=frozen_lake", "normalization=observations"],
        ["env.id=Taxi-v4", "normalization=observations_and_rewards"],
    ],
    "needed_part": [
        ["algorithm=sac", "env=pendulum", "network=none"],
        ["estimator=none"],
        ["network=none"],
        ["optimizer=none"],
        ["algorithm=dqn", "exploration=none"],
    ],
    "unused_part": [
        ["exploration=epsilon_greedy"],
        ["algorithm=value_iteration", "env=taxi", "estimator=gae"],
        ["baseline=value"],
        ["algorithm=reinforce", "estimator=gae"],
        ["algorithm=a2c", "baseline=value"],
        ["algorithm=sac", "env=pendulum", "estimator=one_step_td"],
    ],
    "estimator_input": [
        ["++plugins=[config_faults]", "estimator._target_=config_faults.needs_q", "~estimator.lambda_"]
    ],
    "estimator_horizon": [
        ["estimator=n_step", "estimator.n_step=126"],
        ["algorithm=dqn", "estimator=n_step", "experience.sequence_length=4"],
        ["algorithm=a2c", "estimator.n_step=6"],
        ["algorithm=a2c", "experience.rollout_length=4"],
    ],
    "network_input": [
        ["algorithm=sac", "env=pendulum", "network=table"],
        ["network=cnn"],
        ["network=table"],
        ["algorithm=dqn", "network=table", "env=acrobot"],
    ],
    "minibatches": [
        ["algorithm.num_minibatches=3"],
        ["algorithm.num_minibatches=1000"],
        ["experience.num_envs=1", "algorithm.num_minibatches=3"],
    ],
    "rollout_fits": [["total_env_steps=999"], ["experience.rollout_length=100000"]],
    "episodes_divide": [
        ["algorithm=reinforce", "experience.num_envs=3"],
        ["algorithm=reinforce", "experience.num_episodes=4"],
    ],
    "batch_fits_buffer": [["algorithm=dqn", "experience.batch_size=10001"]],
    "collection_divides": [["algorithm=dqn", "experience.num_envs=3"]],
    "sequence_fits_buffer": [
        ["algorithm=dqn", "experience.sequence_length=20000"],
        ["algorithm=dqn", "experience.sequence_length=1500", "experience.num_envs=10"],
    ],
    "collection_fits_buffer": [["algorithm=dqn", "experience.collection_steps=20000", "total_env_steps=1000000"]],
    "learning_starts_in_time": [
        ["algorithm=dqn", "experience.learning_starts=200000", "experience.capacity=300000"],
        ["algorithm=dqn", "experience.learning_starts=10001"],
    ],
    "interval_fits": [
        ["evaluation.interval=100001"],
        ["checkpoint.interval=100001"],
        ["logger.interval=100001"],
    ],
    "numpy_vector": [
        ["execution.vector=numpy", "env=acrobot"],
        ["execution.vector=numpy", "env.kwargs={sutton_barto_reward: true}"],
        ["algorithm=value_iteration", "env=taxi", "execution.vector=numpy"],
    ],
    "unused_workers": [["execution.workers=2"], ["execution.workers=2", "execution.vector=sync"]],
    "compiled_episodes": [["algorithm=reinforce", "execution.compile=true"]],
    "compiled_seeds": [["seeds=[0,1]", "execution.compile=true"]],
}
"""Command lines that break one pair rule each, by the rule's name."""

OTHERS = [
    ["seed=0,1"],
    ["seed"],
    ["--nonsense"],
    ["algorithm=[1"],
    ["algorithm=null"],
    ["~algorithm"],
    ["~algorithm.gamma"],
    ["device=abacus"],
    ["env.id=Nonsense-v0"],
    ["env.id=Blackjack-v1"],
    ["env.id=CliffWalking-v1", "env.time_limit=null"],
    ["hydra.nonsense=1"],
    ["hydra/launcher=nonsense"],
    ["algorithm._target_=os.system"],
    [
        "network._target_=rlexp.functional.exploration.EpsilonGreedy",
        "++network.epsilon=0.1",
        "~network.hidden",
        "~network.activation",
    ],
    ["estimator._target_=rlexp.functional.schedules.constant", "~estimator.lambda_", "++estimator.value=1"],
    ["algorithm._target_=torch.nn.functional.torch.os.mkdir"],
    ["network._target_=rlexp.storage.remove", "++network.path=x"],
    ["optimizer.rule.eps=-1"],
    ["optimizer.networks.critc.learning_rate=1e-3"],
    ["restart=true", "extend=nowhere"],
    ["extend=nowhere", "total_env_steps=200000"],
    ["algorithm.gamma=nan"],
    ["optimizer.learning_rate=inf"],
    ["algorithm.clip_ratio={_target_: rlexp.functional.schedules.linear, start: 0.2}"],
    ["total_env_steps=1e5.5"],
    ["network.hidden=[64,0]"],
    ["network=linear", "algorithm.shared_encoder=true"],
    ["algorithm=a2c", "network.hidden=[]", "algorithm.shared_encoder=true"],
    ["algorithm=dqn", "algorithm.shared_encoder=true"],
    ["algorithm=reinforce", "baseline._target_=rlexp.functional.advantages.one_step_td"],
    ["--config-dir", "/nonexistent/folder"],
    ["seed=1", "seeds=[0,1]"],
    ["seeds=[0,0]"],
    ["seed=1e300"],
    ["device=${oc.env:HOME}"],
    ["tags=['${now:%Y}']"],
    ["seed=${total_env_steps:1}"],
    ["-m", "seed=range(0,1000000000)"],
    ["algorithm._partial_=true"],
    ["algorithm.clip_ratio={_target_: rlexp.functional.advantages.gae, lambda_: 0.9}"],
    ["algorithm.gamma={_target_: torch.nn.Linear, in_features: 2, out_features: 3}"],
    ["env.id={_target_: torch.nn.Linear, in_features: 2, out_features: 3}"],
    ["hydra.searchpath=[pkg://antigravity]"],
    ["env.declared.action.n=0"],
    ["env.declared.observation.shape=[-4]"],
    ["env.declared.time_limit=1e400"],
    ["tags=" + "[" * 3000 + "]" * 3000],
]

HOSTILE_VALUES = [
    "${oc.env:HOME}", "${oc.decode:5}", "${now:%Y}", "${hydra:runtime.cwd}", "${seed}", "${nope}", "${${seed}}", "${",
    "$",
    "${.seed}", "${..a}", "${a[0]}", "!!python/object/apply:os.system [true]", "!!python/name:os.system ",
    "!!binary aGk=",
    "!canary {}", "&a [*a]", "*a", "<<: {a: 1}", "? [a]\n: 1", "---\n", "%YAML 9.9\n", "\ufeff", "\0", "\x1b[2J", "???",
    "{_target_: os.system, command: true}", "{_target_: torch.nn.Linear, in_features: 2, out_features: 2}",
    "{_target_: rlexp.functional.schedules.linear, start: 1, end: 0, fraction: 1}", "{_partial_: true}",
    "{_args_: [1]}",
    "range(0,1000000000)", "range(0,3)", "range(0,1,0)", "range(1,inf)", "choice(1,2)", "interval(0,1)", "glob(*)",
    "shuffle(range(0,99999999999))", "sort(3,1,2)", "tag(a,choice(1,2))", "int(x)", "float(nan)", "bool(2)", "str([1])",
    "nan", "inf", "-inf", "1e400", "0x" + "f" * 60, "9" * 5000, "1_0", "0o7", "1:2:3", "2026-01-01", "yes", "~", "null",
    "[" * 300, "{a: " * 100 + "1" + "}" * 100, "../../../etc/passwd", "/etc/passwd", "a" * 3000,
    "defaults: [x]", "defaults:\n  - ../x\n", "# @package _global_\n", "# @package ${oc.env:HOME}\n",
    "plugins: [canary]\n", "hydra: {searchpath: ['pkg://canary']}\n",
    "hydra: {callbacks: {a: {_target_: os.system}}}\n",
]  # fmt: skip
"""Pieces of override grammar and YAML that mean something, mostly something that they should not."""

VALID = [
    [],
    ["algorithm=dqn"],
    ["algorithm=value_iteration", "env=frozen_lake"],
    ["algorithm=value_iteration", "env=taxi"],
    ["algorithm=value_iteration", "env=cliff_walking"],
    ["algorithm=dqn", "env=acrobot", "seed=3", "device=cpu", "total_env_steps=100_000", "algorithm.gamma=0.98"],
    ["algorithm=ppo", "estimator=n_step", "estimator.n_step=5", "network=mlp", "network.hidden=[128,128]"],
    ["algorithm=a2c", "env=acrobot"],
    [
        "algorithm=a2c",
        "estimator=gae",
        "algorithm.shared_encoder=true",
        "optimizer.networks.encoder.learning_rate=1e-4",
    ],
    ["algorithm=a2c", "env=pendulum", "experience=rollout"],
    ["algorithm=ppo", "algorithm.shared_encoder=true"],
    ["algorithm=reinforce"],
    ["algorithm=reinforce", "baseline=none"],
    ["algorithm=reinforce", "experience.num_episodes=32", "optimizer.networks.critic.learning_rate=1e-2"],
    ["experiment=a2c_cartpole"],
    ["experiment=reinforce_cartpole"],
    ["experiment=dqn_cartpole"],
    ["experiment=ppo_cartpole"],
    ["experiment=ppo_acrobot"],
    ["experiment=ppo_pendulum"],
    ["experiment=sac_pendulum"],
    ["algorithm=sac", "env.id=MountainCarContinuous-v0", "optimizer.networks.temperature.learning_rate=1e-4"],
    ["env=pendulum", "normalization=observations_and_rewards", "normalization.reward_clip=5"],
    ["algorithm=sac", "env=pendulum", "normalization=observations"],
    ["env=frozen_lake", "normalization=rewards"],
    ["env=mountain_car"],
    ["env=frozen_lake", "network=table"],
    ["env=taxi", "network=linear"],
    ["algorithm=dqn", "env=frozen_lake", "network=table"],
    ["estimator=monte_carlo"],
    ["estimator=one_step_td"],
    ["estimator=td_lambda", "estimator.lambda_=1"],
    ["optimizer=rmsprop"],
    ["optimizer=sgd", "optimizer.rule.momentum=0.9"],
    ["optimizer.networks.critic.learning_rate=3e-3"],
    ["optimizer.learning_rate={_target_: rlexp.functional.schedules.linear, start: 1e-3, end: 0, fraction: 1}"],
    ["algorithm.clip_ratio={_target_: rlexp.functional.schedules.linear, start: 0.2, end: 0.05, fraction: 1}"],
    ["env.id=MountainCarContinuous-v0"],
    ["env=frozen_lake", "env.kwargs={is_slippery: false}"],
    ["env.time_limit=200", "evaluation.policy=sampled"],
    ["execution.vector=numpy", "env.time_limit=200"],
    ["execution.vector=async", "execution.workers=2", "execution.step_deadline=null", "env=acrobot"],
    ["evaluation=none", "logger=local"],
    ["total_env_steps=1e5", "optimizer.max_grad_norm=null", "algorithm.target_kl=0.02"],
    ["debug=tiny"],
    ["experiment=null", "seed=0"],
]


def faults(seed: int = 0) -> list[Fault]:
    """All malformed command lines, in a fixed order."""
    found = [*keys_with_errors(seed), *wrong_types(), *out_of_range(), *unknown_choices()]
    found += [Fault(f"rule {rule}", line) for rule, lines in PAIRS.items() for line in lines]
    return [*found, *(Fault("other", line) for line in OTHERS)]


class Answer(NamedTuple):
    code: int
    stderr: str
    seconds: float
    left_behind: list[str]


def refuse(arguments: list[str]) -> Answer:
    """Run one command line in this process, in an empty folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as stderr:
        os.chdir(folder)
        began = time.perf_counter()
        try:
            code = guarded(lambda: command(arguments))
        finally:
            seconds = time.perf_counter() - began
            os.chdir(before)
        left = [str(path) for path in Path(folder).rglob("*")]
    return Answer(code, stderr.getvalue(), seconds, left)


def complaint(fault: Fault, answer: Answer) -> str | None:
    """What is wrong with how a fault was refused, or None."""
    shown = f"{' '.join(fault.arguments)}: code {answer.code}, stderr {answer.stderr!r}"
    if answer.code != 2 or answer.stderr.count("\n") != 1 or not answer.stderr.startswith("rlexp: error[2]: "):
        return shown
    if answer.seconds > DEADLINE or answer.left_behind:
        return f"{shown}, {answer.seconds:.1f} s, left {answer.left_behind}"
    if fault.kind.startswith("rule ") and f"{fault.kind[5:]}:" not in answer.stderr:
        return f"{shown}: not by its rule"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="which letters are mistyped (0)")
    options = parser.parse_args()
    counts: dict[str, int] = {}
    bad, slowest = [], 0.0
    for fault in faults(options.seed):
        answer = refuse(fault.arguments)
        kind = "pair rule" if fault.kind.startswith("rule ") else fault.kind
        counts[kind] = counts.get(kind, 0) + 1
        slowest = max(slowest, answer.seconds)
        if (wrong := complaint(fault, answer)) is not None:
            bad.append(wrong)
            sys.stdout.write(wrong + "\n")
    for kind, count in counts.items():
        sys.stdout.write(f"{count:5} {kind}\n")
    sys.stdout.write(
        f"{sum(counts.values())} malformed command lines, {len(bad)} not refused; slowest {slowest:.2f} s\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
