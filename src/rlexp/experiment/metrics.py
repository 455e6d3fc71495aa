"""Every metric once: its formula, how a row reduces it, and which algorithms must log it.

docs/metrics.md is made from this table (`python scripts/make_docs.py`), and a test holds every algorithm to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WITH_CRITIC = "REINFORCE with a critic"
POLICY = frozenset({"PPO", "A2C", "REINFORCE"})
SOFT = frozenset({"SAC"})
ACTOR = POLICY | SOFT
STATE_VALUE = frozenset({"PPO", "A2C", WITH_CRITIC})
CRITIC = STATE_VALUE | SOFT
CLIPPED = frozenset({"PPO"})
REPLAYED = frozenset({"DQN", "SAC"})
Q = frozenset({"DQN", "SAC", "ValueIteration"})
VALUE = STATE_VALUE | Q
STEPPED = ACTOR | {"DQN"}
ALL = STEPPED | {"ValueIteration"}


@dataclass(frozen=True)
class Metric:
    """`reduce` says what a row shows of the values since the last row: mean, maximum, or the present value."""

    name: str
    meaning: str
    reduce: str
    required: frozenset[str] = frozenset()


TABLE: tuple[Metric, ...] = (
    Metric(
        "episode/return",
        "undiscounted sum of rewards of an episode, raw, over the episodes that ended",
        "mean",
        STEPPED,
    ),
    Metric("episode/length", "steps of an episode, over the episodes that ended", "mean", STEPPED),
    Metric(
        "episode/reward_per_step", "sum of rewards over sum of steps of the episodes that ended", "present", STEPPED
    ),
    Metric("episode/count", "episodes that ended", "present", STEPPED),
    Metric("eval/return", "undiscounted return of the evaluation episodes, the same for every run", "mean", ALL),
    Metric("eval/return_std", "standard deviation of the return over those episodes, not over seeds", "present", ALL),
    Metric("eval/episodes", "how many of them", "present", ALL),
    Metric("eval/length", "steps of those episodes", "mean", ALL),
    Metric(
        "loss/actor",
        "negative surrogate objective of the policy, without the entropy bonus: a mean over steps, for REINFORCE over "
        "episodes of the sum of their steps; of SAC temperature x log pi - Q",
        "mean",
        ACTOR,
    ),
    Metric(
        "loss/critic",
        "half the mean squared distance of V, or Q, to its target, before value_coef; summed over twin critics",
        "mean",
        CRITIC,
    ),
    Metric("loss/temperature", "temperature x (entropy - target entropy)", "mean", SOFT),
    Metric("loss/q", "Huber loss of the TD error", "mean", frozenset({"DQN"})),
    Metric(
        "policy/entropy",
        "entropy of the policy that acts, nats; of the epsilon-greedy one for Q-learning; of SAC from samples, -log pi",
        "mean",
        STEPPED,
    ),
    Metric("policy/temperature", "weight of the entropy, reward per nat", "mean", SOFT),
    Metric("policy/approx_kl", "KL(old, new) from samples, mean of (ratio - 1) - log ratio", "mean", CLIPPED),
    Metric("policy/clip_fraction", "share of samples whose ratio is outside 1 +- clip_ratio", "mean", CLIPPED),
    Metric("policy/steps_taken", "share of the minibatch steps taken before target_kl ended them", "mean", CLIPPED),
    Metric("policy/clip_ratio", "present value of the schedule", "present", CLIPPED),
    Metric(
        "value/max_q",
        "largest Q(s, a) of a batch, over states and actions; grows without end when learning diverges",
        "max",
        Q,
    ),
    Metric("value/mean", "mean V(s), or Q(s, a) of the actions taken, of a batch", "mean", VALUE),
    Metric("value/target", "mean regression target of a batch", "mean", VALUE),
    Metric("value/td_error", "mean absolute one-step TD error, r + discount V(s') - V(s) or its Q form", "mean", VALUE),
    Metric(
        "value/bellman_residual",
        "largest |T Q - Q| of a sweep, over states and actions",
        "mean",
        frozenset({"ValueIteration"}),
    ),
    Metric(
        "value/explained_variance", "1 - Var(target - V) / Var(target): 1 is perfect, 0 a constant", "mean", STATE_VALUE
    ),
    Metric("optimizer/learning_rate", "present value of the schedule", "present", STEPPED),
    Metric("optimizer/grad_norm_actor", "2-norm of the actor's gradient before clipping", "mean", ACTOR),
    Metric("optimizer/grad_norm_critic", "2-norm of the critic's gradient before clipping", "mean", CRITIC),
    Metric("optimizer/grad_norm_encoder", "2-norm of the shared encoder's gradient before clipping", "mean"),
    Metric("optimizer/grad_norm_temperature", "size of the gradient of log temperature before clipping", "mean", SOFT),
    Metric("optimizer/grad_norm_q", "2-norm of the Q network's gradient before clipping", "mean", frozenset({"DQN"})),
    Metric("exploration/epsilon", "probability of a random action", "present", frozenset({"DQN"})),
    Metric(
        "normalization/reward_scale",
        "what rewards are divided by where they are normalised: standard deviation of the discounted return",
        "present",
    ),
    Metric("replay/size", "transitions in the buffer", "present", REPLAYED),
    Metric(
        "time/fps",
        "environment steps per second of wall time since the last row, everything included",
        "present",
        ALL,
    ),
    Metric("time/act", "seconds choosing actions since the last row", "present", STEPPED),
    Metric("time/env", "seconds in the environments", "present", STEPPED),
    Metric("time/sample", "seconds drawing batches from the buffer", "present", REPLAYED),
    Metric("time/update", "seconds in the algorithm's update", "present", ALL),
    Metric("time/report", "seconds logging, evaluating and saving", "present", ALL),
    Metric("time/other", "seconds of the loop itself and of assembling batches", "present", ALL),
)

_REDUCE = {metric.name: metric.reduce for metric in TABLE}
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "max": torch.amax}


def required_of(algorithm: str) -> list[str]:
    """The metrics that an algorithm, by its name in the table, must have logged by the end of a run."""
    return [metric.name for metric in TABLE if algorithm in metric.required]


def reduce(name: str, values: Sequence[Tensor]) -> list[float]:
    """For each seed, what a row shows of the values of one metric, each [*S].

    The one place where they leave their device. The last dim is reduced, which rounds alike for one seed and several.
    """
    reduced = _REDUCTIONS[_REDUCE.get(name, "mean")](torch.stack(list(values), -1).double(), dim=-1)
    return [float(value) for value in reduced.reshape(-1).tolist()]
