"""x Wᵀ + b of stacked seeds, with the numbers that each seed has alone.

Under `torch.func.vmap` a linear layer of S seeds becomes one batched matrix product. Whether that rounds as S single
products do is up to the processor and the BLAS: on some processors the gradient of narrow layers differs in its last
bit, and a run would no longer equal the same seed alone. So the batched product is used for a shape where it was seen
to give the same bits, and single products, one after the other, everywhere else (1.2 to 2 times slower).
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import linear

ALIGNMENT = 64  # bytes; where torch's memory begins
Product = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear_per_seed(x: Tensor, weight: Tensor, bias: Tensor, num_seeds: int) -> Tensor:
    """`linear` as a mapped function calls it: x [*B, I], weight [O, I], bias [O], of one of `num_seeds` seeds."""
    rows = x.shape[:-1].numel()
    chosen = linear if batched_agrees(num_seeds, rows, *weight.shape, weight.dtype, weight.device) else one_by_one
    return chosen(x, weight, bias)


@functools.cache
def batched_agrees(
    num_seeds: int, rows: int, out_features: int, in_features: int, dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether output and gradients of the batched product equal those of single ones, bit for bit, for this shape.

    Kernels are chosen by shape, and another order of summation shows in some of a few thousand random numbers. It is
    asked while a function is being mapped, where nothing can be differentiated: a thread of its own is outside of that.
    """
    if device.type != "cpu":
        return True  # no promise is made there
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_compare, num_seeds, rows, out_features, in_features, dtype).result()


def _compare(num_seeds: int, rows: int, out_features: int, in_features: int, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)  # of this comparison alone

    def random(*shape: int) -> Tensor:
        return torch.randn(num_seeds, *shape, dtype=dtype, generator=generator)

    given = random(rows, in_features), random(out_features, in_features), random(out_features)
    towards = random(rows, out_features)
    batched = _with_gradients(vmap(linear), given, towards)
    alone = [[x[s].clone() for x in (*given, towards)] for s in range(num_seeds)]  # in its own memory
    single = [_with_gradients(linear, of_one, towards_one) for *of_one, towards_one in alone]
    stacked = [torch.stack(of_each) for of_each in zip(*single, strict=True)]
    return all(map(torch.equal, batched, stacked))


def _with_gradients(product: Product, given: Sequence[Tensor], towards: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in given]
    output = product(*leaves)
    return output.detach(), *torch.autograd.grad(output, leaves, towards)


def one_by_one(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear`, which vmap maps to a product for each seed."""
    output: Tensor = _Mapped.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return output


class _Mapped(torch.autograd.Function):
    """Says what vmap makes of it; it is not called otherwise."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep: `_OneByOne` has the gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Tensor) -> tuple[Tensor, int]:
        stacked = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(given, in_dims, strict=True)
        ]
        return _OneByOne.apply(*stacked), 0  # type: ignore[no-untyped-call]


class _OneByOne(torch.autograd.Function):
    """x [S, *B, I], weight [S, O, I], bias [S, O] to [S, *B, O], by the products of `linear`'s forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _rows(x)
        ctx.save_for_backward(rows, weight)
        products = [torch.addmm(b, _own(r), w.mT) for b, r, w in _each_seed(bias, rows, weight)]
        return torch.stack(products).view(*x.shape[:-1], weight.shape[1])

    @staticmethod
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        towards_rows = _rows(towards)
        own = [(_own(g), _own(r), w) for g, r, w in _each_seed(towards_rows, rows, weight)]
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.stack([g @ w for g, _, w in own]).view(*towards.shape[:-1], weight.shape[2])
        return of_x, torch.stack([g.mT @ r for g, r, _ in own]), towards_rows.sum(1)


def _own(x: Tensor) -> Tensor:
    """In memory of its own: products round by how their operands lie, and a slice of a stack may begin anywhere."""
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


def _each_seed(*stacked: Tensor) -> Any:
    return zip(*(x.unbind(0) for x in stacked), strict=True)


def _rows(x: Tensor) -> Tensor:
    """[S, *B, F] to [S, B, F]."""
    return x.reshape(len(x), -1, x.shape[-1])
