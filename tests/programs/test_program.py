"""Whole functions: networks and their gradients, what comes out, memory that changes, and random functions."""

import itertools
import math
import random
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.func import functional_call

from rlexp.functional.distributions import SquashedGaussian, family_of
from rlexp.networks.heads import policy_network, q_network, twin_critic, value_network
from rlexp.networks.layers import Table, initialise
from rlexp.networks.torso import CNN, MLP, LinearFeatures, Tabular
from rlexp.programs.record import NotRecordable, record
from rlexp.types import Box, Discrete, EnvSpec
from tests.programs.same import (
    SEEDS,
    assert_close,
    assert_equals_torch,
    assert_same,
    assert_stacked_equals_alone,
    done_by_torch,
    gradient,
    numbers,
    program_of,
)

# ------------------------------------------------------------------------------------------------------------ networks

ENCODERS = {
    "mlp tanh": MLP(hidden=[16, 8], activation="tanh", layer_norm=False),
    "mlp relu": MLP(hidden=[16], activation="relu", layer_norm=False),
    "mlp elu": MLP(hidden=[16], activation="elu", layer_norm=False),
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
        ENCODERS[encoder], OBSERVATIONS[observation], ACTIONS[action], HEADS[head],
        id=f"{encoder}, {observation}, {head} {action}",
    )
    for encoder, observation, action, head in itertools.product(ENCODERS, OBSERVATIONS, ACTIONS, HEADS)
    if not (head == "q" and action == "box") and not (encoder == "table" and observation == "vector")
    if encoder == "mlp tanh" or (head, action) in {("policy", "box"), ("q", "discrete")}
]  # fmt: skip
ROWS = [1, 8]


def perturb(module: nn.Module, seed: int) -> None:
    """Move every parameter in place, biases and deviations too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def observed(observation, rows: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(observation, Discrete):
        return torch.randint(observation.n, (rows,), generator=generator)
    return 2 * torch.randn(rows, *observation.shape, generator=generator)


def with_gradient(network: nn.Module):
    """(output, gradient of its mean square)"""

    def function(*x: torch.Tensor):
        y = network(*x)
        return y, torch.autograd.grad(y.square().mean(), list(network.parameters()), allow_unused=False)

    return function


def of_values(network: nn.Module):
    """The mean square of its output, a function of the parameters [P], too."""
    shapes = {name: p.shape for name, p in network.named_parameters()}

    def function(values: torch.Tensor, *x: torch.Tensor) -> torch.Tensor:
        leaves, offset = {}, 0
        for name, shape in shapes.items():
            leaves[name] = values[offset : offset + shape.numel()].view(shape)
            offset += shape.numel()
        return functional_call(network, leaves, x).square().mean()

    return function


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


@pytest.mark.parametrize(("encoder", "observation", "action", "head"), NETWORKS)
def test_networks_and_their_gradients(encoder, observation, action, head) -> None:
    """Recorded once, the parameters move afterwards."""
    network = head(EnvSpec("test", observation, action, 10, False), encoder)
    initialise(network, torch.Generator().manual_seed(0))
    for rows in ROWS:
        x = observed(observation, rows)
        program, seen = program_of(with_gradient(network), [x]), []
        for seed in range(2):
            perturb(network, seed)
            seen.append(program(x))
            assert_close(seen[-1], with_gradient(network)(x))
            assert_same(program(x), seen[-1])
        assert not torch.allclose(seen[0][0], seen[1][0])


@pytest.mark.parametrize(("encoder", "observation", "action", "head"), NETWORKS)
def test_networks_of_stacked_seeds(encoder, observation, action, head) -> None:
    network, values = head(EnvSpec("test", observation, action, 10, False), encoder), []
    for seed in range(SEEDS):
        initialise(network, torch.Generator().manual_seed(seed))
        perturb(network, seed)
        values.append(flat(network))
    for rows in ROWS:
        x = torch.stack([observed(observation, rows, s) for s in range(SEEDS)])
        assert_stacked_equals_alone(of_values(network), [torch.stack(values), x], of=gradient)


def test_twin_critic_and_images() -> None:
    spec = EnvSpec("test", Box((4,)), Box((2,), -1.0, 1.0), 10, False)
    network = twin_critic(spec, ENCODERS["mlp relu"])
    initialise(network, torch.Generator().manual_seed(0))
    for lead in ((7,), (1, 8)):
        assert_equals_torch(with_gradient(network), *[(numbers(*lead, 4, seed=s), numbers(*lead, 2)) for s in (0, 1)])
    encoder = CNN(channels=[4], kernel_size=3, stride=2, hidden=[8])
    images = EnvSpec("test", Box((6, 6, 2), 0.0, 255.0), Discrete(3), 10, False)
    network = q_network(images, encoder)
    initialise(network, torch.Generator().manual_seed(0))
    assert_equals_torch(with_gradient(network), [numbers(5, 6, 6, 2)], [numbers(5, 6, 6, 2, seed=1)])


def test_small_networks_are_done_without_torch() -> None:
    spec = EnvSpec("test", Box((4,)), Discrete(2), 9, False)
    network = policy_network(spec, ENCODERS["mlp tanh"], family_of(spec.action))
    assert done_by_torch(record(with_gradient(network), [numbers(7, 4)])) == []


def test_table_and_its_precision() -> None:
    table = Table(5, 3, dtype=torch.float64)
    perturb(table, 0)
    (returned,) = assert_equals_torch(table, [torch.tensor([4, 0, 4])])
    assert returned.dtype == torch.float64


# ------------------------------------------------------------------------------------------------------ what comes out


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


WEIGHT = numbers(3)
OUTPUTS = {
    "a tensor": lambda x: x + 1,
    "the input": lambda x: x,
    "a view of the input": lambda x: x.T[1:],
    "a parameter": lambda x: (WEIGHT, x),
    "the same twice": lambda x: [(y := x * 2), y],
    "views of one another": lambda x: ((y := x * 2), y.T, y[0]),
    "a dict of tuples": lambda x: {"b": (x.sum(), None), "a": [x.exp(), 3, 0.5, True]},
    "named": lambda x: Pair(x * 2, Pair(x.mean(), None)),
    "nothing": lambda x: (),
    "expanded": lambda x: x.sum().expand(4),
    "constants": lambda x: (torch.arange(3.0) * 2, torch.zeros(2), torch.tensor([1.0, 2.0]), x.new_ones(2)),
    "of shapes alone": lambda x: (torch.zeros_like(x * 2) + 1) * x.shape[0],
    "gradient that is expanded": lambda x: torch.autograd.grad((y := x.clone().requires_grad_()).sum(), y),
}


@pytest.mark.parametrize("function", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_outputs(function) -> None:
    returned = assert_equals_torch(function, [numbers(2, 3)], [numbers(2, 3, seed=1)])
    expected = function(numbers(2, 3))
    assert type(returned[0]) is type(expected)
    if isinstance(expected, dict):
        assert list(returned[0]) == list(expected)


def test_the_input_is_left_alone() -> None:
    x = numbers(2, 3)
    before = x.clone()
    program = program_of(lambda x: x.relu_().mul_(2) + x.sub_(1), [x])
    program(x)
    assert torch.equal(x, before)


def test_what_is_not_finite_raises_nothing() -> None:
    x = torch.tensor([[0.0, -1.0, math.inf, math.nan, 1e38]])
    for function in (lambda x: (1 / x, x.log(), x.sqrt(), x * 1e10), lambda x: (x.log_softmax(-1), x.exp(), x.mean())):
        assert_equals_torch(function, [x])


# ------------------------------------------------------------------------------------------------ memory that changes


def test_parameters_and_constants_that_change_in_place_are_followed() -> None:
    scale, offset = torch.tensor(2.0), torch.zeros(3)
    program = program_of(lambda x: x * scale + (offset * torch.ones(3)).exp(), [numbers(2, 3)])
    for k in range(3):
        scale.add_(1)
        offset[k] = k
        assert_close(program(numbers(2, 3)), numbers(2, 3) * scale + offset.exp())


def filled(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(4, 3)
    y[1] = x[0]
    y[2:] += x
    return y


def counted(x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(())
    for row in x:
        total += row.sum()
    return total


def spoilt(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A view is changed, and by it what it is a view of."""
    y = x * 2
    row, column = y[0], y[:, 1]
    before = y.clone()
    row.mul_(3)
    column += 1
    return before, y, y.T


IN_PLACE = {
    "filled": filled,
    "counted": counted,
    "spoilt": spoilt,
    "addmm_": lambda x: (x.T @ x).addmm_(x.T, x),
    "addcmul_": lambda x: (x + 1).addcmul_(x, x),
    "addcmul_ of itself": lambda x: (y := x + 1).addcmul_(y, x),
    "baddbmm_": lambda x: (x.expand(2, 2, 3) * 1).baddbmm_(x[:, :2].expand(2, 2, 2), x.expand(2, 2, 3)),
    "masked_fill_": lambda x: (x * 1).masked_fill_(x > 0, 2.0),
    "where it is negative": lambda x: torch.index_put((y := x * 1), (y < 0,), torch.zeros(())),
    "copy_": lambda x: (x * 1).copy_(x[0]),
    "fill_ and zero_": lambda x: (x * 1).fill_(3.0) + (x * 1).zero_(),
    "clamp_ of integers": lambda x: (x * 4).long().clamp_(max=2),
    "comparison": lambda x: (x * 1).gt_(0).add_(x),
    "mixed": lambda x: (x * 1).sigmoid_().pow_(2).div_(x.exp()).sub_(x, alpha=2).neg_().tanh_(),
    "scatter_add_": lambda x: (x * 1).scatter_add_(-1, (x[:, :1] > 0).long(), x[:, 1:2]),
    "of integers by fractions": lambda x: (x * 4).long().add_((x > 0).long()),
    "more digits": lambda x: (x * 1).add_(x.double()).mul_(torch.tensor(0.1, dtype=torch.float64)),
    "a constant that is changed": lambda x: torch.ones(2, 3).mul_(x).add_(torch.ones(3)),
}


@pytest.mark.parametrize("function", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_in_place(function) -> None:
    assert_equals_torch(function, [numbers(2, 3)], [numbers(2, 3, seed=1)])


# ---------------------------------------------------------------------------------------------------- random functions

UNARY = [
    torch.tanh, torch.relu, torch.neg, torch.abs, torch.sigmoid, torch.sgn, lambda x: x.clamp(-1, 1), lambda x: 1 - x,
    lambda x: x.square(), lambda x: x.tanh().exp(), lambda x: (x.abs() + 1).log(), lambda x: x / 3, lambda x: x + 0.5,
    lambda x: (x.abs() + 1).sqrt(), lambda x: x.clone(), lambda x: x.log_softmax(-1), lambda x: torch.zeros_like(x),
]  # fmt: skip
BINARY = [
    torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda x, y: torch.where(x > y, x, y * 2),
    lambda x, y: x / (y.abs() + 1), lambda x, y: torch.addcmul(x, y, x), lambda x, y: x.masked_fill(y < 0, 0.25),
    lambda x, y: torch.cat([x, y], -1)[..., : x.shape[-1]], lambda x, y: torch.stack([x, y]).mean(0),
    lambda x, y: torch.ops.aten.tanh_backward(x, y),
]  # fmt: skip
REDUCTIONS = [
    lambda x: x.sum(-1, keepdim=True), lambda x: x.mean(0, keepdim=True), lambda x: x.amax(-1, keepdim=True),
    lambda x: x.mean(), lambda x: x.sum((0, 1)), lambda x: x.amin(0), lambda x: x.std(-1, unbiased=False, keepdim=True),
]  # fmt: skip
CHANGES = [
    lambda x, y: x.add_(y), lambda x, y: x.mul_(y), lambda x, y: x[0].add_(y[-1]),
    lambda x, y: x[:, :1].copy_(y[:, 1:2]),
    lambda x, y: x.clamp_(-2, 2), lambda x, y: x.tanh_(), lambda x, y: x[1:].mul_(0.5), lambda x, y: x.addcmul_(y, y),
]  # fmt: skip
VIEWS = [lambda x: x[:], lambda x: x.T, lambda x: x.flip(0), lambda x: x.detach(), lambda x: x[1:2].expand_as(x)]


def random_function(seed: int):
    """A straight line over square matrices: some operation of some of what was made before, old or new; what is
    returned are some of them, views among them."""

    def function(*inputs: torch.Tensor):
        draw = random.Random(seed)
        made = list(inputs)
        for _ in range(draw.randint(3, 25)):
            x, y = (made[draw.randrange(max(0, len(made) - 6), len(made))] for _ in range(2))
            kind = draw.random()
            if kind < 0.3:
                made.append(draw.choice(UNARY)(x))
            elif kind < 0.6:
                made.append(draw.choice(BINARY)(x, y))
            elif kind < 0.7:
                made.append(x + draw.choice(REDUCTIONS)(y))
            elif kind < 0.8:
                made.append((x @ y.T if draw.random() < 0.5 else torch.addmm(y[0], x, y)).tanh())
            elif kind < 0.9:
                made.append(draw.choice(VIEWS)(x))
            else:
                whole = x.is_contiguous() or x.T.is_contiguous()  # numbers that lie in one place cannot be changed
                own = x if whole and draw.random() < 0.7 else x.clone()
                draw.choice(CHANGES)(own, y.clone())
                made.append(own)
        return [made[-1], *draw.sample(made, min(2, len(made)))]

    return function


def batches(seed: int, *lead: int) -> list[list[torch.Tensor]]:
    size = 3 + seed % 4
    return [[numbers(*lead, size, size, seed=10 * seed + 2 * k + i) for i in range(2)] for k in range(2)]


@pytest.mark.parametrize("block", range(10))
def test_random_functions(block: int) -> None:
    """Memory is given to another operation only once nobody reads it any more."""
    for seed in range(20 * block, 20 * block + 20):
        assert_equals_torch(random_function(seed), *batches(seed))


@pytest.mark.parametrize("block", range(10))
def test_random_functions_of_stacked_seeds(block: int) -> None:
    for seed in range(8 * block, 8 * block + 8):
        assert_stacked_equals_alone(random_function(seed), *batches(seed, SEEDS))


@pytest.mark.parametrize("block", range(5))
def test_random_gradients(block: int) -> None:
    """With enough digits that no function is too steep to compare."""
    done = 0
    for seed in range(1000 + 20 * block, 1020 + 20 * block):
        function = random_function(seed)

        def scalar(*inputs: torch.Tensor, function=function) -> torch.Tensor:
            return sum(y.tanh().sum() for y in function(*[x * 1 for x in inputs])) + 0 * sum(x.sum() for x in inputs)

        doubles = [[x.double() for x in inputs] for inputs in batches(seed)]
        try:
            record(gradient(scalar), doubles[0])
        except NotRecordable:  # what the gradient needs was changed, or a view that it goes through
            continue
        assert_equals_torch(gradient(scalar), *doubles)
        done += 1
    assert done >= 12
