"""Each kernel gives torch's numbers, in every layout, and stacked seeds the numbers of one alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rlexp.programs.kernels import IN_PLACE, KERNELS
from rlexp.programs.record import record
from tests.programs.same import SEEDS, assert_equals_torch, assert_stacked_equals_alone, done_by_torch, numbers

ops = torch.ops.aten


class Case(NamedTuple):
    """function: of two tensors of one shape."""

    function: Callable[[Tensor, Tensor], Any]
    positive: bool = False  # whether it takes none but positive numbers
    least: int = 0  # dims
    laid: bool = True  # whether the kernel takes every layout; else torch does the others
    mapped: bool = True  # whether vmap knows it


def index(y: Tensor) -> Tensor:
    """[*B, N] to [*B, 1], where in the row to look."""
    return (y[..., :1].abs() * 7).long() % max(1, y.shape[-1])


def joined(a: Tensor, b: Tensor) -> Tensor:
    """[*A, N] and [*B, M] as one vector."""
    return torch.cat([a.flatten(), b.flatten()])


CASES: dict[str, list[Case]] = {
    "aten::mm": [Case(lambda x, y: x @ y.mT, least=2), Case(lambda x, y: x.mT @ y, least=2)],
    "aten::bmm": [Case(lambda x, y: torch.bmm(x.expand(2, *x.shape), y.mT.expand(2, *y.mT.shape)), least=2)],
    "aten::mv": [Case(lambda x, y: x.mT @ y.flatten()[: x.shape[0]], least=2)],
    "aten::dot": [Case(lambda x, y: x.flatten() @ y.flatten())],
    "aten::addmm": [
        Case(lambda x, y: torch.addmm(y[:, 0], x, y.mT), least=2),
        Case(lambda x, y: torch.addmm((x @ y.mT)[:, :1], x, y.mT), least=2),
    ],
    "aten::baddbmm": [
        Case(lambda x, y: torch.baddbmm(y[:, 0], x.expand(2, *x.shape), y.mT.expand(2, *y.mT.shape)), least=2)
    ],
    "aten::add": [Case(torch.add), Case(lambda x, y: 0.3 + x), Case(lambda x, y: x + y[:1], least=1)],
    "aten::sub": [Case(torch.sub), Case(lambda x, y: x - 0.3)],
    "aten::rsub": [Case(lambda x, y: torch.rsub(x, y)), Case(lambda x, y: 1 - x)],
    "aten::mul": [Case(torch.mul), Case(lambda x, y: x * 0.3)],
    "aten::div": [Case(torch.div), Case(lambda x, y: x / 3), Case(lambda x, y: (7 * x).long() / 3)],
    "aten::neg": [Case(lambda x, y: -x)],
    "aten::exp": [Case(lambda x, y: x.exp()), Case(lambda x, y: (x > 0).exp())],
    "aten::log": [Case(lambda x, y: x.log(), positive=True)],
    "aten::log1p": [Case(lambda x, y: x.log1p(), positive=True), Case(lambda x, y: (x > 1).log1p())],
    "aten::sqrt": [Case(lambda x, y: x.sqrt(), positive=True)],
    "aten::reciprocal": [Case(lambda x, y: x.reciprocal()), Case(lambda x, y: ((7 * x).long() + 1).reciprocal())],
    "aten::abs": [Case(lambda x, y: x.abs())],
    "aten::sgn": [Case(lambda x, y: torch.sgn(x))],
    "aten::sign": [Case(lambda x, y: torch.sign(x))],
    "aten::maximum": [Case(torch.maximum)],
    "aten::minimum": [Case(torch.minimum)],
    "aten::tanh": [Case(lambda x, y: x.tanh())],
    "aten::eq": [Case(lambda x, y: x.round() == y.round()), Case(lambda x, y: x.round() == 1)],
    "aten::ne": [Case(lambda x, y: x.round() != y.round())],
    "aten::lt": [Case(lambda x, y: x < y), Case(lambda x, y: x < 0.1)],
    "aten::le": [Case(lambda x, y: x <= y)],
    "aten::gt": [Case(lambda x, y: x > y)],
    "aten::ge": [Case(lambda x, y: x >= y), Case(lambda x, y: x.round() >= 1.5)],
    "aten::logical_and": [Case(lambda x, y: torch.logical_and(x > 0, y.round()))],
    "aten::logical_or": [Case(lambda x, y: torch.logical_or(x > 0, y > 0))],
    "aten::logical_not": [Case(lambda x, y: torch.logical_not(x > 0))],
    "aten::pow": [
        Case(lambda x, y: x**2), Case(lambda x, y: x**3), Case(lambda x, y: x**-0.5, positive=True),
        Case(lambda x, y: x**y, positive=True), Case(lambda x, y: 0.9**x),
    ],
    "aten::relu": [Case(lambda x, y: x.relu())],
    "aten::clamp": [
        Case(lambda x, y: x.clamp(-0.5, 0.5)), Case(lambda x, y: x.clamp(min=0.2)), Case(lambda x, y: x.clamp(max=0)),
        Case(lambda x, y: x.clamp(-y.abs(), y.abs())),
    ],
    "aten::sigmoid": [Case(lambda x, y: x.sigmoid()), Case(lambda x, y: (50 * x).sigmoid())],
    "aten::tanh_backward": [Case(lambda x, y: ops.tanh_backward(x, y))],
    "aten::threshold_backward": [
        Case(lambda x, y: ops.threshold_backward(x, y, 0)),
        Case(lambda x, y: ops.threshold_backward(x, torch.relu(y), 0)),
    ],
    "aten::elu": [Case(lambda x, y: torch.nn.functional.elu(x))],
    "aten::elu_backward": [
        Case(lambda x, y: ops.elu_backward(x, 1, 1, 1, False, y)),
        Case(lambda x, y: ops.elu_backward(x, 1.0, 1, 1.0, True, torch.nn.functional.elu(y))),
    ],
    "aten::addcmul": [Case(lambda x, y: torch.addcmul(x, y, x)), Case(lambda x, y: torch.addcmul(x, x, y))],
    "aten::where": [Case(lambda x, y: torch.where(x > 0, x, y)), Case(lambda x, y: torch.where(x > 0, x, 0.0))],
    "aten::masked_fill": [Case(lambda x, y: x.masked_fill(y > 0, 3.0))],
    "aten::_to_copy": [Case(lambda x, y: x.double()), Case(lambda x, y: (9 * x).long()), Case(lambda x, y: x.bool())],
    "aten::clone": [
        Case(lambda x, y: x.clone()),
        Case(lambda x, y: y.mT.clone(memory_format=torch.contiguous_format), least=2),
    ],
    "aten::copy": [Case(lambda x, y: ops.copy(x, y), mapped=False)],
    "aten::cat": [
        Case(lambda x, y: torch.cat([x, y], -1), least=1), Case(lambda x, y: torch.cat([x, y]), least=1),
        Case(lambda x, y: torch.cat([x[..., :2], y.double(), x], -1), least=1),
        Case(lambda x, y: torch.cat([torch.empty(0), x]), least=1),
    ],
    "aten::stack": [Case(lambda x, y: torch.stack([x, y])), Case(lambda x, y: torch.stack([x, y], -1))],
    "aten::sum": [
        Case(lambda x, y: x.sum()), Case(lambda x, y: x.sum(-1)), Case(lambda x, y: x.sum(0, keepdim=True)),
        Case(lambda x, y: x.sum((0, -1)), least=2), Case(lambda x, y: (x > 0).sum(-1)),
        Case(lambda x, y: x.expand(4, *x.shape).contiguous().sum(0)),
        Case(lambda x, y: x.expand(4, *x.shape).contiguous().sum((0, 1)), least=1),
        Case(lambda x, y: x.sum(0, dtype=torch.float64)),
        Case(lambda x, y: torch.stack([x, y], -1)[..., 0].sum(-1)),
    ],
    "aten::mean": [
        Case(lambda x, y: x.mean()), Case(lambda x, y: x.mean(-1, keepdim=True)), Case(lambda x, y: x.mean(0)),
        Case(lambda x, y: x.expand(4, *x.shape).contiguous().mean((0, 1)), least=1),
    ],
    "aten::amax": [
        Case(lambda x, y: torch.cat([x.flatten(), y.new_ones(1)]).amax()),
        Case(lambda x, y: torch.stack([x, y], -1).amax(-1)),
    ],
    "aten::amin": [
        Case(lambda x, y: x.sum().amin()), Case(lambda x, y: torch.stack([x, y]).amin(0)),
        Case(lambda x, y: torch.stack([x, y], -1).amin(-1, keepdim=True)),
    ],
    "aten::std": [
        Case(lambda x, y: x.std(unbiased=False), least=1, laid=False),
        Case(lambda x, y: joined(x, y).std(), least=1, laid=False),
        Case(lambda x, y: torch.stack([x, y], -1).std(-1, keepdim=True)),
    ],
    "aten::_log_softmax": [Case(lambda x, y: x.log_softmax(-1), least=1, laid=False)],
    "aten::_log_softmax_backward_data": [
        Case(lambda x, y: ops._log_softmax_backward_data(x, y, -1, torch.float32), least=1, laid=False)
    ],
    "aten::argmax": [Case(lambda x, y: torch.stack([x, y], -1).argmax(-1))],
    "aten::gather": [Case(lambda x, y: x.gather(-1, index(y)), least=1, laid=False)],
    "aten::scatter_add": [Case(lambda x, y: x.scatter_add(-1, index(y), y[..., :1]), least=1, laid=False)],
}  # fmt: skip
MORE = {
    "log softmax along another axis": Case(lambda x, y: x.log_softmax(0)),
    "gather of several": Case(lambda x, y: x.gather(-1, (9 * y).abs().long() % max(1, x.shape[-1])), least=1),
    "std of one number": Case(lambda x, y: x.sum().std()),
    "integers": Case(lambda x, y: ((9 * x).long() - 2 * (9 * y).long()).clamp(min=-3).abs().sum(-1)),
    "argmax of all": Case(lambda x, y: joined(torch.stack([x.sum(), x.abs().sum()]), y).argmax()),
    "argmax, keepdim": Case(lambda x, y: torch.stack([x, y], -1).argmax(-1, keepdim=True)),
    "rounded division": Case(lambda x, y: torch.div(x, 0.3, rounding_mode="floor")),
    "alpha": Case(lambda x, y: torch.add(x, y, alpha=0.3) - torch.sub(y, x, alpha=2)),
    "a number of more digits": Case(lambda x, y: x * torch.tensor(0.1, dtype=torch.float64)),
    "compared with one": Case(lambda x, y: (0 * x + 0.1) < torch.tensor(0.1, dtype=torch.float64)),
}
"""What a kernel must leave to torch, and mixtures."""
LAYOUTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "matrix": ((5, 3), lambda x: x),
    "of eight": ((4, 8), lambda x: x),
    "wide": ((3, 40), lambda x: x),
    "0-d": ((), lambda x: x),
    "vector": ((8,), lambda x: x),
    "one row": ((1, 7), lambda x: x),
    "one column": ((7, 1), lambda x: x),
    "no rows": ((0, 3), lambda x: x),
    "transposed": ((4, 6), lambda x: x.mT),
    "expanded": ((6,), lambda x: x.expand(4, 6)),
    "expanded column": ((6, 1), lambda x: x.expand(6, 4)),
    "half of the columns": ((5, 6), lambda x: x.chunk(2, -1)[1]),
    "one of two columns": ((9, 2), lambda x: x[:, 1:]),
    "first of two": ((2, 8), lambda x: x[0]),
    "every other row": ((8, 3), lambda x: x[::2]),
}
PLAIN = {"matrix", "of eight", "wide", "vector", "one row", "one column"}


def test_the_table_has_every_kernel() -> None:
    assert set(CASES) == set(KERNELS)
    assert set(IN_PLACE) <= set(KERNELS)


def _inputs(case: Case, shape: tuple[int, ...], seed: int) -> list[Tensor]:
    both = [numbers(*shape, seed=seed), numbers(*shape, seed=seed + 1)]
    return [x.abs() + 0.1 for x in both] if case.positive else both


def _layouts(case: Case):
    for name, (shape, layout) in LAYOUTS.items():
        if layout(torch.zeros(shape)).dim() >= case.least:
            yield name, shape, lambda x, y, layout=layout: case.function(layout(x), layout(y))


CHOICES = [pytest.param(name, case, id=f"{name[6:]} {k}") for name in CASES for k, case in enumerate(CASES[name])]


@pytest.mark.parametrize(("name", "case"), CHOICES)
def test_equals_torch(name: str, case: Case) -> None:
    for layout, shape, function in _layouts(case):
        inputs = [_inputs(case, shape, seed) for seed in (0, 10)]
        recording = record(function, inputs[0])
        assert name in {operation.operator._schema.name for operation in recording.operations}, layout
        if case.laid or layout in PLAIN:
            assert name not in done_by_torch(recording), layout
        assert_equals_torch(function, *inputs)


MAPPED = {f"{name[6:]} {k}": case for name in CASES for k, case in enumerate(CASES[name]) if case.mapped} | MORE


@pytest.mark.parametrize("case", MAPPED.values(), ids=MAPPED.keys())
def test_stacked_seeds_equal_each_alone(case: Case) -> None:
    for _, shape, function in _layouts(case):
        assert_stacked_equals_alone(function, _inputs(case, (SEEDS, *shape), seed=0))


@pytest.mark.parametrize("case", MORE.values(), ids=MORE.keys())
def test_what_is_left_to_torch(case: Case) -> None:
    for _, shape, function in _layouts(case):
        assert_equals_torch(function, *[_inputs(case, shape, seed) for seed in (0, 10)])
