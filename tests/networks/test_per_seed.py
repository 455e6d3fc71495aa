"""A linear layer of stacked seeds gives each seed the bits that it has alone, whichever way it is computed."""

import pytest
import torch
from torch.func import vmap
from torch.nn.functional import linear

from rlexp.networks import per_seed
from rlexp.networks.layers import Linear

SHAPES = [((7,), 3, 5), ((256,), 4, 64), ((40,), 64, 1), ((25, 3), 17, 6), ((128,), 120, 84), ((), 8, 2)]
SHAPES += [
    ((64,), 11, 13),
    ((32,), 100, 50),
    ((21,), 50, 50),
    ((50,), 6, 50),
    ((128,), 13, 7),
]  # unaligned


def tensors(num_seeds: int, lead: tuple[int, ...], inputs: int, outputs: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (*lead, inputs), (outputs, inputs), (outputs,), (*lead, outputs)
    return [torch.randn(num_seeds, *shape, generator=generator) for shape in shapes]


def with_gradients(product, x, weight, bias, towards):
    leaves = [leaf.detach().requires_grad_() for leaf in (x, weight, bias)]
    output = product(*leaves)
    return [output, *torch.autograd.grad(output, leaves, towards)]


def each_alone(num_seeds: int, *given: torch.Tensor) -> list[torch.Tensor]:
    alone = [with_gradients(linear, *(x[s].clone() for x in given)) for s in range(num_seeds)]
    return [torch.stack(of_each) for of_each in zip(*alone, strict=True)]


@pytest.mark.parametrize(("lead", "inputs", "outputs"), [shape for shape in SHAPES if shape[0]])
def test_one_by_one_is_each_alone(lead: tuple[int, ...], inputs: int, outputs: int) -> None:
    given = tensors(3, lead, inputs, outputs)
    together = with_gradients(vmap(per_seed.one_by_one), *given)
    for one, other in zip(together, each_alone(3, *given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("lead", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("agrees", [None, False])
def test_the_chosen_product_is_each_alone(lead, inputs, outputs, agrees, monkeypatch) -> None:
    """As it is chosen on this processor, and where the batched one were found to round otherwise."""
    if agrees is not None:
        monkeypatch.setattr(per_seed, "batched_agrees", lambda *shape: agrees)
    given = tensors(4, lead, inputs, outputs)
    layer = Linear(inputs, outputs)
    layer.num_seeds = 4

    def called(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    for one, other in zip(with_gradients(vmap(called), *given), each_alone(4, *given), strict=True):
        assert torch.equal(one, other)


def test_an_input_that_all_seeds_share() -> None:
    x, weight, bias, _ = tensors(3, (10,), 4, 2)
    mapped = vmap(per_seed.one_by_one, in_dims=(None, 0, 0))(x[0], weight, bias)
    assert torch.equal(mapped, torch.stack([linear(x[0], weight[s], bias[s]) for s in range(3)]))


def test_a_disagreement_in_one_bit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 16, 8, 4, torch.float32)
    exact = per_seed.linear
    monkeypatch.setattr(per_seed, "vmap", lambda function: vmap(lambda *given: function(*given) * (1 + 1e-7)))
    assert not per_seed._compare(*shape)
    monkeypatch.setattr(per_seed, "vmap", lambda function: lambda x, w, b: torch.stack(list(map(exact, x, w, b))))
    assert per_seed._compare(*shape)
