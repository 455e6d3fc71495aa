"""Slow estimators from their definitions: explicit sums over the rewards of one trajectory, plain Python numbers.

Nothing here is recursive, so that nothing here can share an error with the recurrences under test.
"""

import random
from typing import NamedTuple

import torch
from torch import Tensor


class Trajectory(NamedTuple):
    """Rows of one environment, possibly of several episodes."""

    reward: list[float]
    terminated: list[int]
    truncated: list[int]
    value: list[float]
    next_value: list[float]


def random_trajectory(rng: random.Random, length: int) -> Trajectory:
    """Values agree where an episode goes on (V(s') of a row is V(s) of the next) and are unrelated across its end."""
    terminated, truncated = [0] * length, [0] * length
    for t in range(length):
        kind = rng.random()
        terminated[t] = int(kind < 0.15 or 0.3 <= kind < 0.35)
        truncated[t] = int(0.15 <= kind < 0.35)
    value = [rng.gauss(0, 3) for _ in range(length)]
    next_value = [
        value[t + 1] if t + 1 < length and not (terminated[t] or truncated[t]) else rng.gauss(0, 3)
        for t in range(length)
    ]
    return Trajectory([rng.gauss(0, 1) for _ in range(length)], terminated, truncated, value, next_value)


def last_row(x: Trajectory, t: int) -> int:
    """The last row of the episode of row t that the data hold."""
    for e in range(t, len(x.reward)):
        if x.terminated[e] or x.truncated[e]:
            return e
    return len(x.reward) - 1


def n_step_return(x: Trajectory, t: int, n: int, gamma: float) -> float:
    """The sum of at most n discounted rewards and the discounted value of where they lead, if anywhere."""
    m = min(n, last_row(x, t) - t + 1)
    total = 0.0
    for k in range(m):
        total += gamma**k * x.reward[t + k]
    final = t + m - 1
    if not x.terminated[final]:
        total += gamma**m * x.next_value[final]
    return total


def full_return(x: Trajectory, t: int, gamma: float) -> float:
    return n_step_return(x, t, len(x.reward), gamma)


def lambda_return(x: Trajectory, t: int, gamma: float, lambda_: float) -> float:
    """n-step returns in the proportions (1 - λ) λ^(n - 1); what is left falls to the longest one."""
    longest = last_row(x, t) - t + 1
    total = 0.0
    for n in range(1, longest):
        total += (1 - lambda_) * lambda_ ** (n - 1) * n_step_return(x, t, n, gamma)
    return total + lambda_ ** (longest - 1) * n_step_return(x, t, longest, gamma)


def summed_td_errors(x: Trajectory, t: int, gamma: float, lambda_: float) -> float:
    """Eq. 16 of the GAE paper as it stands: the sum of (γ λ)^l δ_(t + l)."""
    total = 0.0
    for k in range(t, last_row(x, t) + 1):
        bootstrap = 0.0 if x.terminated[k] else gamma * x.next_value[k]
        total += (gamma * lambda_) ** (k - t) * (x.reward[k] + bootstrap - x.value[k])
    return total


def as_tensors(columns: list[Trajectory], gamma: float) -> tuple[Tensor, ...]:
    """What an estimator is given, [T, B] in double precision: reward, discount, value, next_value, done, log_rho."""

    def stack(name: str) -> Tensor:
        return torch.tensor([getattr(x, name) for x in columns], dtype=torch.float64).T.contiguous()

    terminated, truncated = stack("terminated"), stack("truncated")
    log_rho = torch.full_like(terminated, 0.7)  # every one of these estimators must ignore it
    done = torch.maximum(terminated, truncated)
    return stack("reward"), gamma * (1 - terminated), stack("value"), stack("next_value"), done, log_rho
