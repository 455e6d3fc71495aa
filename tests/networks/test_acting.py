"""The NumPy forward pass equals the modules, for every network that a configuration can make."""

import itertools

import pytest
import torch
from torch import nn

from rlexp.functional.distributions import SquashedGaussian, family_of
from rlexp.networks.acting import numpy_forward
from rlexp.networks.heads import policy_network, q_network, value_network
from rlexp.networks.layers import AppendLogStd, Linear, OneHot, Squeeze, Table, initialise
from rlexp.networks.torso import MLP, LinearFeatures, Tabular
from rlexp.types import Box, Discrete, EnvSpec

ENCODERS = {
    "mlp tanh": MLP(hidden=[16, 8], activation="tanh", layer_norm=False),
    "mlp relu": MLP(hidden=[16], activation="relu", layer_norm=False),
    "mlp layer norm": MLP(hidden=[16, 8], activation="relu", layer_norm=True),
    "mlp without hidden layers": MLP(hidden=[], activation="tanh", layer_norm=False),
    "linear": LinearFeatures(),
    "table": Tabular(),
}
OBSERVATIONS = {"vector": Box((4,)), "integer": Discrete(6)}
HEADS = {
    "policy": lambda spec, encoder: policy_network(spec, encoder, family_of(spec.action)),
    "squashed policy": lambda spec, encoder: policy_network(spec, encoder, SquashedGaussian(2, -1.0, 1.0)),
    "value": value_network,
    "q": q_network,
}
ACTIONS = {"discrete": Discrete(3), "box": Box((2,), -1.0, 1.0)}
NETWORKS = [
    pytest.param(
        ENCODERS[encoder],
        OBSERVATIONS[observation],
        ACTIONS[action],
        HEADS[head],
        id=f"{encoder}, {observation}, {head} {action}",
    )
    for encoder, observation, action, head in itertools.product(ENCODERS, OBSERVATIONS, ACTIONS, HEADS)
    if not (head == "q" and action == "box") and not (encoder == "table" and observation == "vector")
]


def perturb(module: nn.Module, seed: int) -> None:
    """Move every parameter in place, biases and deviations too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape, generator=generator, dtype=p.dtype)


def inputs(observation) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if isinstance(observation, Discrete):
        return torch.randint(observation.n, (7,), generator=generator)
    return 2 * torch.randn(7, *observation.shape, generator=generator)


@pytest.mark.parametrize(("encoder", "observation", "action", "head"), NETWORKS)
def test_equals_the_module_and_follows_its_parameters(encoder, observation, action, head) -> None:
    network = head(EnvSpec("test", observation, action, 10, False), encoder)
    initialise(network, torch.Generator().manual_seed(0))
    forward = numpy_forward(network)
    assert forward is not None
    x = inputs(observation)
    seen = []
    for seed in range(3):
        perturb(network, seed)
        expected = network(x).detach()
        seen.append(expected)
        torch.testing.assert_close(forward(x), expected, rtol=1e-5, atol=1e-5)
        assert forward(x).dtype == expected.dtype
        assert torch.equal(forward(x), forward(x))
    assert not torch.allclose(seen[0], seen[1])


def test_table_and_its_precision() -> None:
    table = Table(5, 3, dtype=torch.float64)
    forward = numpy_forward(table)
    assert forward is not None
    perturb(table, 0)
    x = torch.tensor([4, 0, 4])
    assert torch.equal(forward(x), table(x).detach())
    assert forward(x).dtype == torch.float64


def test_what_it_hands_out_is_not_changed_by_a_later_step() -> None:
    network = nn.Sequential(OneHot(3), Linear(3, 2))
    initialise(network, torch.Generator().manual_seed(0))
    forward = numpy_forward(network)
    assert forward is not None
    x = torch.tensor([0, 1, 2])
    first = forward(x)
    copy = first.clone()
    forward(torch.tensor([2, 2, 2]))
    perturb(network, 0)
    assert torch.equal(first, copy)


def test_the_input_is_left_alone() -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU(), AppendLogStd(2))
    x = torch.tensor([[-1.0, 2.0]])
    forward = numpy_forward(network)
    assert forward is not None
    forward(x)
    assert x.tolist() == [[-1.0, 2.0]]


class OtherLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class OtherSequential(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    "module",
    [
        nn.ELU(),
        nn.Sequential(Linear(2, 2), nn.ELU(), Linear(2, 2)),
        nn.Sequential(Linear(2, 2), nn.Sequential(nn.Conv1d(1, 1, 1))),
        nn.Linear(2, 2, bias=False),
        nn.Sequential(OtherLinear(2, 2)),
        OtherSequential(Squeeze()),
    ],
    ids=["layer", "in the middle", "nested", "without bias", "derived layer", "derived container"],
)
def test_unknown_layers_are_left_to_torch(module: nn.Module) -> None:
    assert numpy_forward(module) is None
