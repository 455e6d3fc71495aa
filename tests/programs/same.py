"""Whether a program gives what torch gives, the first time and later, alone and stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from rlexp.programs.plan import OF_METADATA, Plan
from rlexp.programs.program import Program
from rlexp.programs.record import Recording, record

SEEDS = 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def program_of(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """It takes tensors."""
    program = Program(record(function, inputs))
    return lambda *given: program(*[x.numpy() for x in given])


def done_by_torch(recording: Recording) -> list[str]:
    """Names of the operators that no kernel does."""
    found: list[str] = []

    class Watched(Plan):
        def _by_torch(self, operation):  # type: ignore[no-untyped-def]
            if operation.operator._schema.name not in OF_METADATA:  # once, before it runs
                found.append(operation.operator._schema.name)
            return super()._by_torch(operation)

    Watched(recording).steps()
    return found


def assert_close(actual: Any, expected: Any) -> None:
    """Up to rounding, which is relative to the largest number: others are differences of such."""
    for x, y in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        if isinstance(y, Tensor):
            if x.dtype == y.dtype and torch.equal(x, y):
                continue  # asserting takes ten times as long
            size = y[y.isfinite()].abs().double().max().item() if y.is_floating_point() and y.isfinite().any() else 0
            torch.testing.assert_close(x, y.detach(), rtol=1e-5, atol=1e-6 + 1e-5 * size, equal_nan=True)
        else:
            assert x == y


def assert_same(actual: Any, expected: Any) -> None:
    """Bit for bit."""
    for x, y in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        if not (isinstance(y, Tensor) and x.dtype == y.dtype and torch.equal(x, y)):
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def assert_equals_torch(function: Callable[..., Any], *batches: Sequence[Tensor]) -> list[Any]:
    """Of each batch of inputs; what was returned stays, and comes again. Returns the numbers."""
    program = program_of(function, batches[0])
    returned = [program(*inputs) for inputs in batches]
    kept = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, returned)
    for inputs, first in zip(batches, kept, strict=True):
        assert_close(first, function(*[x.clone() for x in inputs]))
        assert_same(program(*inputs), first)
    assert_same(returned, kept)
    return returned


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function's sum, by all inputs that are fractions."""

    def of(*inputs: Tensor) -> Any:
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        by = [leaf for leaf in leaves if leaf.requires_grad]
        return torch.autograd.grad(function(*leaves).sum(), by, materialize_grads=True)

    return of


def assert_stacked_equals_alone(
    function: Callable[..., Any],
    *batches: Sequence[Tensor],
    of: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
) -> None:
    """Of inputs [S, ...]: each seed's numbers are those it has alone, bit for bit, and those of torch nearly."""
    stacked = program_of(of(vmap(function)), batches[0])
    alone = program_of(of(function), [x[0] for x in batches[0]])
    for inputs in batches:
        together = stacked(*inputs)
        for s in range(len(inputs[0])):
            of_one = tree_map(lambda x, s=s: x[s], together)
            assert_same(of_one, alone(*[x[s].clone() for x in inputs]))
            assert_close(of_one, of(function)(*[x[s].clone() for x in inputs]))
