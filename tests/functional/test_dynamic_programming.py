"""Bellman's backup against loops in NumPy."""

import numpy as np
import torch

from rlexp.functional.dynamic_programming import bellman_optimality
from rlexp.types import MDP


def random_model(seed: int, num_states: int, num_actions: int) -> MDP:
    """Rows with mass below one: the rest ends the episode."""
    rng = np.random.default_rng(seed)
    transition = rng.random((num_states, num_actions, num_states))
    transition *= rng.uniform(0.5, 1.0, (num_states, num_actions, 1)) / transition.sum(-1, keepdims=True)
    reward = rng.standard_normal((num_states, num_actions))
    return MDP(torch.from_numpy(transition), torch.from_numpy(reward))


def test_equals_loops() -> None:
    for seed in range(5):
        model = random_model(seed, 6, 3)
        q_value = np.random.default_rng(seed + 100).standard_normal((6, 3))
        backed_up = bellman_optimality(torch.from_numpy(q_value), model, 0.9).numpy()
        for s in range(6):
            for a in range(3):
                expected = float(model.reward[s, a])
                for n in range(6):
                    expected += 0.9 * float(model.transition[s, a, n]) * max(q_value[n])
                assert abs(backed_up[s, a] - expected) < 1e-12


def test_is_a_contraction_by_gamma_in_the_maximum_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        model = random_model(seed, 8, 2)
        one, other = (torch.randn(8, 2, dtype=torch.float64, generator=generator) for _ in range(2))
        apart = (bellman_optimality(one, model, 0.7) - bellman_optimality(other, model, 0.7)).abs().max()
        assert apart <= 0.7 * (one - other).abs().max() + 1e-12


def test_no_mass_means_no_bootstrap() -> None:
    model = MDP(torch.zeros(2, 2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.equal(bellman_optimality(torch.full((2, 2), 100.0), model, 0.9), model.reward)
