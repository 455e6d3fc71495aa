"""Every metric once: its formula, how a row reduces it, and which algorithms must log it.

docs/metrics.md is made from this table (`python scripts/make_docs.py`), and a test holds every algorithm to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

POLICY = frozenset({"PPO"})
ACTOR_CRITIC = frozenset({"PPO", "SAC"})
VALUE = frozenset({"PPO", "DQN", "SAC", "ValueIteration"})
Q = frozenset({"DQN", "SAC", "ValueIteration"})
STEPPED = frozenset({"PPO", "DQN", "SAC"})
REPLAYED = frozenset({"DQN", "SAC"})
SOFT = frozenset({"SAC"})


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
    Metric("eval/return", "undiscounted return of the evaluation episodes, the same for every run", "mean", VALUE),
    Metric("eval/return_std", "standard deviation of the return over those episodes, not over seeds", "present", VALUE),
    Metric("eval/episodes", "how many of them", "present", VALUE),
    Metric("eval/length", "steps of those episodes", "mean", VALUE),
    Metric(
        "loss/actor",
        "negative surrogate objective of the policy, without an entropy bonus; of SAC temperature x log pi - Q",
        "mean",
        ACTOR_CRITIC,
    ),
    Metric(
        "loss/critic",
        "half the mean squared distance of V, or Q, to its target, before value_coef; summed over twin critics",
        "mean",
        ACTOR_CRITIC,
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
    Metric("policy/approx_kl", "KL(old, new) from samples, mean of (ratio - 1) - log ratio", "mean", POLICY),
    Metric("policy/clip_fraction", "share of samples whose ratio is outside 1 +- clip_ratio", "mean", POLICY),
    Metric("policy/steps_taken", "share of the minibatch steps taken before target_kl ended them", "mean", POLICY),
    Metric("policy/clip_ratio", "present value of the schedule", "present", POLICY),
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
    Metric("value/explained_variance", "1 - Var(target - V) / Var(target): 1 is perfect, 0 a constant", "mean", POLICY),
    Metric("optimizer/learning_rate", "present value of the schedule", "present", STEPPED),
    Metric("optimizer/grad_norm_actor", "2-norm of the actor's gradient before clipping", "mean", ACTOR_CRITIC),
    Metric("optimizer/grad_norm_critic", "2-norm of the critic's gradient before clipping", "mean", ACTOR_CRITIC),
    Metric("optimizer/grad_norm_temperature", "size of the gradient of log temperature before clipping", "mean", SOFT),
    Metric("optimizer/grad_norm_q", "2-norm of the Q network's gradient before clipping", "mean", frozenset({"DQN"})),
    Metric("exploration/epsilon", "probability of a random action", "present", frozenset({"DQN"})),
    Metric("replay/size", "transitions in the buffer", "present", REPLAYED),
    Metric(
        "time/fps",
        "environment steps per second of wall time since the last row, everything included",
        "present",
        VALUE,
    ),
    Metric("time/act", "seconds choosing actions since the last row", "present", STEPPED),
    Metric("time/env", "seconds in the environments", "present", STEPPED),
    Metric("time/sample", "seconds drawing batches from the buffer", "present", REPLAYED),
    Metric("time/update", "seconds in the algorithm's update", "present", VALUE),
    Metric("time/report", "seconds logging, evaluating and saving", "present", VALUE),
    Metric("time/other", "seconds of the loop itself and of assembling batches", "present", VALUE),
)

_REDUCE = {metric.name: metric.reduce for metric in TABLE}
_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "max": torch.amax}


def required_of(algorithm: str) -> list[str]:
    """The metrics that an algorithm, by its class's name, must have logged by the end of a run."""
    return [metric.name for metric in TABLE if algorithm in metric.required]


def reduce(name: str, values: Sequence[Tensor]) -> float:
    """What a row shows of the 0-d tensors of one metric. The one place where they leave their device."""
    return float(_REDUCTIONS[_REDUCE.get(name, "mean")](torch.stack(list(values)).double()))
