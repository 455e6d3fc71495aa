"""Value iteration against an exact solution that shares no code with it: policy iteration with linear solves."""

import itertools

import numpy as np
import pytest
import torch

from rlexp.envs.make import make_env
from tests.algorithms.runs import built, trained

GAMMA = 0.99


def exact_q(env_id: str) -> np.ndarray:
    """Q* by policy iteration on the environment's own table, each policy's values from a linear system."""
    table = make_env(env_id, {}).unwrapped.P
    num_states, num_actions = len(table), len(table[0])
    transition, reward = np.zeros((num_states, num_actions, num_states)), np.zeros((num_states, num_actions))
    for s in range(num_states):
        for a in range(num_actions):
            for probability, successor, gain, ended in table[s][a]:
                reward[s, a] += probability * gain
                if not ended:
                    transition[s, a, successor] += probability
    states, policy = np.arange(num_states), np.zeros(num_states, int)
    for _ in range(1000):
        value = np.linalg.solve(np.eye(num_states) - GAMMA * transition[states, policy], reward[states, policy])
        q_value = reward + GAMMA * transition @ value
        better = q_value.max(-1) > q_value[states, policy] + 1e-12
        if not better.any():
            return q_value
        policy = np.where(better, q_value.argmax(-1), policy)
    raise AssertionError("policy iteration did not end")


@pytest.mark.parametrize(
    ("name", "env_id"),
    [("frozen_lake", "FrozenLake-v1"), ("cliff_walking", "CliffWalking-v1"), ("taxi", "Taxi-v4")],
)
def test_equals_the_exact_solution(name: str, env_id: str) -> None:
    parts = trained("algorithm=value_iteration", f"env={name}", f"algorithm.gamma={GAMMA}", "total_env_steps=5000")
    learned, exact = parts.state.modules["q"].table.detach().numpy(), exact_q(env_id)
    assert parts.experience.finished, "5,000 sweeps did not reach the tolerance"
    assert np.abs(learned - exact).max() < 1e-6
    greedy = parts.algorithm.act(
        parts.state.nets,
        torch.arange(len(exact)),
        None,
        torch.zeros(len(exact), 0),
        parts.state.progress,
        explore=False,
    ).action
    chosen = exact[np.arange(len(exact)), greedy.numpy()]
    assert np.abs(chosen - exact.max(-1)).max() < 1e-6


def test_known_numbers() -> None:
    """CliffWalking: 13 steps of -1 from the start, 12 of them behind the first: -(1 - gamma^13) / (1 - gamma)."""
    q_value = exact_q("CliffWalking-v1")
    assert q_value[36].max() == pytest.approx(-(1 - GAMMA**13) / (1 - GAMMA), abs=1e-9)
    assert q_value[36].argmax() == 0  # up, along the edge


def test_one_update() -> None:
    parts = built("algorithm=value_iteration", "env=frozen_lake", f"algorithm.gamma={GAMMA}")
    model = parts.experience.next(parts.actor, parts.state.progress)
    residuals = []
    for k in range(30):
        before = parts.state.modules["q"].table.detach().clone()
        metrics = parts.algorithm.update(parts.state, model, parts.state.progress).metrics
        moved = (parts.state.modules["q"].table.detach() - before).abs()
        assert all(torch.isfinite(value) and value.shape == () for value in metrics.values())
        assert metrics["value/bellman_residual"] == moved.max()
        assert metrics["value/td_error"] == pytest.approx(moved.mean().item(), abs=1e-15)
        assert metrics["value/max_q"] == parts.state.modules["q"].table.max()
        assert parts.state.progress.updates == k + 1
        residuals.append(moved.max().item())
    assert residuals[0] > 0
    assert all(later <= GAMMA * sooner + 1e-15 for sooner, later in itertools.pairwise(residuals))
