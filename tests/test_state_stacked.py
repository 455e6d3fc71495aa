"""Several seeds in one state: each is the same seed alone, bit for bit."""

import copy
import functools
import math
from typing import NamedTuple

import pytest
import torch
from torch import nn

from rlexp.functional.schedules import linear
from rlexp.networks.layers import AppendLogStd, LayerNorm, Linear, OneHot, Squeeze
from rlexp.state import TrainState
from rlexp.types import Noise
from tests.learner import RULES, batch, how, loss, make

SEEDS = [3, 0, 7]


def alone_and_stacked(optimizations=None) -> tuple[list[TrainState], TrainState]:
    return [make(optimizations, seed) for seed in SEEDS], make(optimizations, SEEDS)


def stack(tensors) -> torch.Tensor:
    return torch.stack(list(tensors))


def assert_equal(alone: list[TrainState], stacked: TrainState) -> None:
    for name, values in stacked.weights().items():
        assert torch.equal(values, stack(state.weights()[name] for state in alone)), name


def data(k: int) -> list[torch.Tensor]:
    """A batch for each seed, [160, 3]: torch multiplies small stacks (less than 400 products) by a kernel of its own,
    which rounds otherwise."""
    return [torch.cat([batch(1000 * k + 100 * s + n) for n in range(10)]) for s in range(len(SEEDS))]


def test_the_weights_of_a_seed_are_those_it_has_alone() -> None:
    alone, stacked = alone_and_stacked()
    assert_equal(alone, stacked)
    assert not torch.equal(stacked.weights()["actor"][0], stacked.weights()["actor"][1])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_steps_equal_those_alone(rule, max_grad_norm: float | None) -> None:
    falling = functools.partial(linear, start=1e-2, end=1e-3, fraction=1.0)
    alone, stacked = alone_and_stacked({name: how(rule, falling, max_grad_norm) for name in ("actor", "critic")})
    for k in range(20):
        single = [state.minimize(("actor", "critic"), loss, x, 2.0) for state, x in zip(alone, data(k), strict=True)]
        metrics = stacked.minimize(("actor", "critic"), loss, stack(data(k)), 2.0)
        for name, value in metrics.items():
            assert torch.equal(value, stack(m[name] for m in single)), name
        for state in (*alone, stacked):
            state.track("target_critic", "critic", 0.1)
    assert_equal(alone, stacked)


def test_a_mask_holds_for_its_seed() -> None:
    """Each seed counts its own steps: bias correction depends on them."""
    alone, stacked = alone_and_stacked()
    for k in range(8):
        active = torch.tensor([1.0, float(k % 2), float(k > 4)])
        for s, (state, x) in enumerate(zip(alone, data(k), strict=True)):
            state.minimize(("actor", "critic"), loss, x, active=active[s])
        stacked.minimize(("actor", "critic"), loss, stack(data(k)), active=active)
    assert_equal(alone, stacked)


def test_the_data_of_one_seed_change_nothing_of_the_others() -> None:
    states = [make(seed=SEEDS) for _ in range(2)]
    for k in range(5):
        for change, state in enumerate(states):
            batches = data(k)
            batches[1] = batches[1] * (1 + 9 * change)
            state.minimize(("actor", "critic"), loss, stack(batches))
    for name in ("actor", "critic"):
        one, other = (state.weights()[name] for state in states)
        assert [torch.equal(one[s], other[s]) for s in range(3)] == [True, False, True]


def test_a_frozen_seed_stands_still_and_the_others_go_on() -> None:
    alone, stacked = alone_and_stacked()
    for k in range(6):
        if k == 3:
            stacked.freeze(1)
        batches = data(k)
        if k >= 3:
            batches[1] = batches[1] * math.nan
        stacked.minimize(("actor", "critic"), loss, stack(batches))
        for s, state in enumerate(alone):
            if s != 1 or k < 3:
                state.minimize(("actor", "critic"), loss, batches[s])
    assert stacked.frozen == [False, True, False]
    assert_equal(alone, stacked)
    assert stacked.finite() == [True] * 3


def test_saved_and_loaded_it_goes_on_alike() -> None:
    stacked, resumed = make(seed=SEEDS), make(seed=SEEDS)
    for k in range(3):
        stacked.minimize(("actor", "critic"), loss, stack(data(k)))
        stacked.permutation("minibatches", 5)
    stacked.freeze(2)
    resumed.load_state_dict(copy.deepcopy(stacked.state_dict()))
    assert resumed.frozen == [False, False, True]
    for k in range(3, 6):
        for state in (stacked, resumed):
            state.minimize(("actor", "critic"), loss, stack(data(k)))
        assert torch.equal(stacked.permutation("minibatches", 9), resumed.permutation("minibatches", 9))
    for name, values in stacked.weights().items():
        assert torch.equal(values, resumed.weights()[name])


def test_random_numbers_and_minibatches_of_a_seed_are_its_own() -> None:
    class Pair(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    alone, stacked = alone_and_stacked()
    pairs = [Pair(torch.randn(11, 2), torch.arange(11) + 100 * s) for s in range(3)]
    for _ in range(3):
        order = stacked.permutation("minibatches", 11)
        orders = [state.permutation("minibatches", 11) for state in alone]
        assert torch.equal(order, stack(orders))
        taken = stacked.take(Pair(*map(stack, zip(*pairs, strict=True))), order[:, :4])
        for s, state in enumerate(alone):
            single = state.take(pairs[s], orders[s][:4])
            assert torch.equal(taken.x[s], single.x)
            assert torch.equal(taken.y[s], single.y)
        noise = Noise("normal", 2)
        assert torch.equal(stacked.draw("acting", noise, 5), stack(s.draw("acting", noise, 5) for s in alone))


class Odd(nn.Module):
    """A layer that the NumPy path does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


NETWORKS = {
    "mlp": lambda: nn.Sequential(Linear(3, 8), LayerNorm(), nn.ReLU(), Linear(8, 2), AppendLogStd(2)),
    "value": lambda: nn.Sequential(nn.Identity(), nn.Sequential(Linear(3, 8), nn.Tanh()), Linear(8, 1), Squeeze()),
    "integers": lambda: nn.Sequential(OneHot(4), Linear(4, 2)),
    "unknown layer": lambda: nn.Sequential(Linear(3, 2), Odd()),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [1, 4])
def test_acting_equals_acting_alone(kind: str, rows: int) -> None:
    def state(seed: int | list[int]) -> TrainState:
        where = torch.device("cpu")
        return TrainState({"net": NETWORKS[kind]()}, {}, {"net": how()}, seed=seed, device=where, total_env_steps=9)

    def observed(s: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(s)
        return (
            torch.randint(4, (rows,), generator=generator)
            if kind == "integers"
            else torch.randn(rows, 3, generator=generator)
        )

    stacked = state(SEEDS)
    x = stack(observed(s) for s in range(3))
    together = stacked.acting_nets().net(x).detach()
    for s, seed in enumerate(SEEDS):
        single = state(seed)
        torch.testing.assert_close(together[s], single.modules["net"](x[s]).detach(), rtol=1e-5, atol=1e-6)
        if kind != "unknown layer":  # small stacks of torch round otherwise
            assert torch.equal(together[s], single.acting_nets().net(x[s]).detach())


def test_each_seed_s_parameters_begin_on_a_cache_line() -> None:
    """Products round by how their operands lie; a seed alone has memory that begins there."""
    state = make(seed=[0, 1, 2])
    for flat in state.flats.values():
        for values, gradient in flat.rows():
            assert values.data_ptr() % 64 == gradient.data_ptr() % 64 == 0
