"""Layers, and their initialisation from a generator with an owner."""

import math

import pytest
import torch
from torch import nn

from rlexp.networks.layers import SQRT2, AppendLogStd, Linear, OneHot, Squeeze, Table, initialise


def make() -> nn.Module:
    return nn.Sequential(Linear(5, 8), nn.Tanh(), Linear(8, 3, gain=0.01), AppendLogStd(3))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_making_and_initialising_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    initialise(make(), generator(0))
    Table(3, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.rand(3)  # what happens elsewhere does not matter
        network = make()
        initialise(network, generator(seed))
        made.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(("shape", "gain"), [((64, 16), SQRT2), ((16, 64), SQRT2), ((5, 2), 0.01), ((7, 1), 1.0)])
def test_weights_are_orthogonal_with_the_gain_of_the_layer_and_biases_zero(shape, gain: float) -> None:
    layer = Linear(*shape, gain=gain)
    initialise(nn.Sequential(layer), generator(3))
    weight = layer.weight.detach().double() / gain
    product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    torch.testing.assert_close(product, torch.eye(len(product), dtype=torch.float64), rtol=0, atol=1e-5)
    assert not layer.bias.any()


def test_initialising_again_forgets_what_was_learned() -> None:
    network = make()
    initialise(network, generator(0))
    first = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p += 1.0
    initialise(network, generator(0))
    # The log standard deviations are a constant at the start, not a draw.
    for p, old in zip(network[:3].parameters(), first, strict=False):
        assert torch.equal(p, old)


def test_one_hot() -> None:
    x = OneHot(4)(torch.tensor([[0, 3], [2, 2]]))
    assert x.tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 1, 0], [0, 0, 1, 0]]]
    assert list(OneHot(4).parameters()) == []
    assert OneHot(4).state_dict() == {}


def test_squeeze() -> None:
    assert Squeeze()(torch.zeros(2, 3, 1)).shape == (2, 3)
    assert Squeeze()(torch.zeros(1, 1)).shape == (1,)  # a batch of one stays a batch


def test_append_log_std() -> None:
    layer = AppendLogStd(2, initial=math.log(0.5))
    mean = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    parameters = layer(mean)
    assert torch.equal(parameters[:, :2], mean)
    torch.testing.assert_close(parameters[:, 2:].exp(), torch.full((3, 2), 0.5))
    (slope,) = torch.autograd.grad(parameters[:, 2:].sum(), layer.log_std)
    assert slope.tolist() == [3.0, 3.0]  # one deviation for all states


def test_table() -> None:
    table = Table(4, 3, dtype=torch.float64)
    assert table.table.dtype == torch.float64
    assert not table.table.any()
    with torch.no_grad():
        table.table.copy_(torch.arange(12.0).view(4, 3))
    assert table(torch.tensor([[3], [0]])).tolist() == [[[9, 10, 11]], [[0, 1, 2]]]
    assert table(torch.tensor([3, 0]), torch.tensor([1, 2])).tolist() == [10, 2]
