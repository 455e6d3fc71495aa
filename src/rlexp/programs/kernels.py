"""NumPy kernels of torch operators, for the few thousand numbers of a small update.

A torch operation on a few hundred numbers takes 2 to 8 us, of which most is not arithmetic; a NumPy one with its memory
at hand 0.5 to 1. Products of narrow matrices and tanh are 3 to 10 times faster on some processors (docs/performance.md).
A kernel is made once from the arrays that it reads and writes, and then called without arguments.

Each gives the numbers of one seed also for stacked ones, bit for bit: products are one after the other, and sums run in
the same order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Step = Callable[[], Any]


class Call(NamedTuple):
    """An operator's arguments, arrays in place of tensors; `out` is its result's memory, or the one changed in place.

    temporary: makes an array [*shape] that is free again after this operation.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    out: Array
    temporary: Callable[..., Array]


Kernel = Callable[[Call], Sequence[Step] | None]


def _ufunc(function: np.ufunc) -> Kernel:
    """Element by element, of all arguments."""

    def kernel(call: Call) -> Sequence[Step] | None:
        if call.keywords or len(call.arguments) != function.nin:
            return None
        return [partial(function, *call.arguments, out=call.out, casting="unsafe")]

    return kernel


def _reversed(function: np.ufunc) -> Kernel:
    def kernel(call: Call) -> Sequence[Step] | None:
        a, b = call.arguments[:2]
        return None if _scale(call) != 1 else [partial(function, b, a, out=call.out, casting="unsafe")]

    return kernel


def _scale(call: Call) -> Any:
    """`alpha` of add and sub, which is their third argument or a keyword."""
    return call.arguments[2] if len(call.arguments) > 2 else call.keywords.get("alpha", 1)


def _plus(function: np.ufunc) -> Kernel:
    def kernel(call: Call) -> Sequence[Step] | None:
        return None if _scale(call) != 1 else [partial(function, *call.arguments[:2], out=call.out, casting="unsafe")]

    return kernel


def _pow(call: Call) -> Sequence[Step]:
    x, exponent = call.arguments
    if exponent == 2:
        return [partial(np.multiply, x, x, out=call.out)]
    return [partial(np.power, x, exponent, out=call.out)]


def _relu(call: Call) -> Sequence[Step]:
    return [partial(np.maximum, call.arguments[0], 0, out=call.out)]


def _clamp(call: Call) -> Sequence[Step]:
    x, low, high = (*call.arguments, None, None)[:3]
    low, high = call.keywords.get("min", low), call.keywords.get("max", high)
    steps: list[Step] = []
    for bound, function in ((low, np.maximum), (high, np.minimum)):
        if bound is not None:
            steps.append(partial(function, x, bound, out=call.out))
            x = call.out
    return steps


def _sigmoid(call: Call) -> Sequence[Step]:
    (x,), out = call.arguments, call.out
    return [
        partial(np.negative, x, out=out),
        partial(np.exp, out, out=out),
        partial(np.add, out, 1, out=out),
        partial(np.reciprocal, out, out=out),
    ]


def _tanh_backward(call: Call) -> Sequence[Step]:
    """g (1 − y²)"""
    (towards, y), out = call.arguments, call.out
    return [
        partial(np.multiply, y, y, out=out),
        partial(np.subtract, 1, out, out=out),
        partial(np.multiply, towards, out, out=out),
    ]


def _addcmul(call: Call) -> Sequence[Step] | None:
    """a + b c"""
    (a, b, c), out = call.arguments, call.out
    if call.keywords.get("value", 1) != 1:
        return None
    return [partial(np.multiply, b, c, out=out), partial(np.add, a, out, out=out)]


def _where(call: Call) -> Sequence[Step]:
    (condition, a, b), out = call.arguments, call.out
    return [
        partial(np.copyto, out, b, casting="unsafe"),
        partial(np.copyto, out, a, where=condition, casting="unsafe"),
    ]


def _masked_fill(call: Call) -> Sequence[Step]:
    x, mask, value = call.arguments
    steps: list[Step] = [] if x is call.out else [partial(np.copyto, call.out, x)]
    return [*steps, partial(np.copyto, call.out, value, where=mask)]


def _copy(call: Call) -> Sequence[Step]:
    source = call.arguments[1] if len(call.arguments) > 1 and call.arguments[0] is call.out else call.arguments[0]
    return [partial(np.copyto, call.out, source, casting="unsafe")]


def _cat(call: Call) -> Sequence[Step]:
    parts, axis = (*call.arguments, 0)[:2]
    return [partial(np.concatenate, parts, axis=axis, out=call.out)]


def _stack(call: Call) -> Sequence[Step]:
    parts, axis = (*call.arguments, 0)[:2]
    axis = axis % call.out.ndim
    places = [(slice(None),) * axis + (index,) for index in range(len(parts))]
    return [partial(np.copyto, call.out[place], part) for place, part in zip(places, parts, strict=True)]


# -------------------------------------------------------------------------------------------------------------- products


def _matmul(call: Call) -> Sequence[Step]:
    return _product(*call.arguments[:2], call)


def _addmm(call: Call) -> Sequence[Step] | None:
    bias, a, b = call.arguments
    if call.keywords.get("beta", 1) != 1 or call.keywords.get("alpha", 1) != 1:
        return None
    return [*_product(a, b, call), partial(np.add, call.out, bias, out=call.out)]


def _product(a: Array, b: Array, call: Call) -> list[Step]:
    """A B, with one inner element as an outer product: as a matrix product it takes ten times as long."""
    if a.shape[-1] == 1:
        return [partial(np.multiply, a, b, out=call.out)]
    steps: list[Step] = []
    factors = []
    for x in (a, b):
        if not _is_matrix(x):
            own = call.temporary(x.shape, x.dtype)
            steps.append(partial(np.copyto, own, x))
            x = own
        factors.append(x)
    if _is_matrix(call.out) and call.out.strides[-1] == call.out.itemsize:
        return [*steps, partial(np.matmul, *factors, out=call.out)]
    own = call.temporary(call.out.shape, call.out.dtype)
    return [*steps, partial(np.matmul, *factors, out=own), partial(np.copyto, call.out, own)]


def _is_matrix(x: Array) -> bool:
    """Whether BLAS takes it as it lies: rows or columns without gaps, which do not overlap."""
    (rows, columns), (of_row, of_column) = x.shape[-2:], (s // x.itemsize for s in x.strides[-2:])
    return (of_column == 1 and of_row >= columns) or (of_row == 1 and of_column >= rows)


# ------------------------------------------------------------------------------------------------------------ reductions


def _axes(call: Call) -> tuple[int, ...]:
    given = call.arguments[1] if len(call.arguments) > 1 else call.keywords.get("dim")
    ndim = call.arguments[0].ndim
    if given is None or given == []:
        return tuple(range(ndim))
    return tuple(axis % ndim for axis in ([given] if isinstance(given, int) else given)) if ndim else ()


def _sum(call: Call) -> Sequence[Step]:
    return _reduced(np.add, call.arguments[0], _axes(call), call)


def _mean(call: Call) -> Sequence[Step]:
    x, axes = call.arguments[0], _axes(call)
    count = math.prod(x.shape[axis] for axis in axes)
    return [*_sum(call), partial(np.true_divide, call.out, count, out=call.out)]


def _extreme(function: np.ufunc) -> Kernel:
    return lambda call: _reduced(function, call.arguments[0], _axes(call), call)


FEW = 8
"""Numbers along the last axis: one operation for each is faster than a reduction."""


def _reduced(function: np.ufunc, x: Array, axes: tuple[int, ...], call: Call) -> list[Step]:
    """Over trailing axes as over one, so that stacked seeds add in the order of one alone."""
    out = call.out
    if not axes:
        return [partial(np.copyto, out, x)]
    kept = x.ndim - len(axes)
    lead = x.shape[:kept]
    if axes == tuple(range(kept, x.ndim)) and x.flags.c_contiguous:
        rows, flat = x.reshape(*lead, -1), out.reshape(lead)
        if kept and 1 < rows.shape[-1] <= FEW and x.dtype == out.dtype:
            steps: list[Step] = [partial(function, rows[..., 0], rows[..., 1], out=flat)]
            return [*steps, *(partial(function, flat, rows[..., i], out=flat) for i in range(2, rows.shape[-1]))]
        return [partial(function.reduce, rows, axis=-1, dtype=out.dtype, out=flat)]
    if function is np.add and axes == (x.ndim - 2,) and _is_matrix(x) and x.dtype == np.float32:
        ones = np.ones((1, x.shape[-2]), x.dtype)
        return [partial(np.matmul, ones, x, out=out.reshape(*x.shape[:-2], 1, x.shape[-1]))]
    keep = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return [partial(function.reduce, x, axis=axes, dtype=out.dtype, out=out.reshape(keep), keepdims=True)]


def _std(call: Call) -> Sequence[Step] | None:
    """√( Σ (x − x̄)² / (n − correction) )"""
    x, axes, out = call.arguments[0], _axes(call), call.out
    count = math.prod(x.shape[axis] for axis in axes)
    correction = call.keywords.get("correction", 1)
    if correction is None or count <= correction or axes != tuple(range(x.ndim - len(axes), x.ndim)):
        return None
    mean, centred = call.temporary(out.shape, out.dtype), call.temporary(x.shape, x.dtype)
    of_rows = mean.reshape(*x.shape[: x.ndim - len(axes)], *(1 for _ in axes))
    return [
        *_reduced(np.add, x, axes, call._replace(out=mean)),
        partial(np.true_divide, mean, count, out=mean),
        partial(np.subtract, x, of_rows, out=centred),
        partial(np.multiply, centred, centred, out=centred),
        *_reduced(np.add, centred, axes, call),
        partial(np.true_divide, out, count - correction, out=out),
        partial(np.sqrt, out, out=out),
    ]


# --------------------------------------------------------------------------------------------- along the last axis only


def _log_softmax(call: Call) -> Sequence[Step] | None:
    """x − max − log Σ exp(x − max)"""
    x, axis, to_float = call.arguments
    if axis % x.ndim != x.ndim - 1 or to_float or not x.flags.c_contiguous:
        return None
    out, power, one = call.out, call.temporary(x.shape, x.dtype), call.temporary(x.shape[:-1], x.dtype)
    last = (x.ndim - 1,)
    return [
        *_reduced(np.maximum, x, last, call._replace(out=one)),
        partial(np.subtract, x, one[..., None], out=out),
        partial(np.exp, out, out=power),
        *_reduced(np.add, power, last, call._replace(out=one)),
        partial(np.log, one, out=one),
        partial(np.subtract, out, one[..., None], out=out),
    ]


def _log_softmax_backward(call: Call) -> Sequence[Step] | None:
    """g − exp(y) Σ g"""
    towards, y, axis, _ = call.arguments
    if axis % y.ndim != y.ndim - 1 or not towards.flags.c_contiguous:
        return None
    out, one = call.out, call.temporary(y.shape[:-1], y.dtype)
    return [
        *_reduced(np.add, towards, (y.ndim - 1,), call._replace(out=one)),
        partial(np.exp, y, out=out),
        partial(np.multiply, out, one[..., None], out=out),
        partial(np.subtract, towards, out, out=out),
    ]


def _gather(call: Call) -> Sequence[Step] | None:
    x, axis, index = call.arguments[:3]
    if not _one_of_each_row(x, axis, index):
        return None
    flat, place = x.reshape(-1), call.temporary(index.shape, np.int64)
    return [
        partial(np.add, index, _starts(index.shape, x.shape[-1]), out=place),
        partial(np.take, flat, place, out=call.out, mode="clip"),  # any other mode copies first
    ]


def _scatter_add(call: Call) -> Sequence[Step] | None:
    x, axis, index, source = call.arguments
    if not _one_of_each_row(call.out, axis, index):
        return None
    flat, place = call.out.reshape(-1), call.temporary(index.shape, np.int64)
    read = call.temporary(index.shape, x.dtype)
    return [
        partial(np.copyto, call.out, x),
        partial(np.add, index, _starts(index.shape, x.shape[-1]), out=place),
        partial(np.take, flat, place, out=read, mode="clip"),
        partial(np.add, read, source, out=read),
        partial(np.put, flat, place, read),
    ]


def _one_of_each_row(x: Array, axis: int, index: Array) -> bool:
    return bool(axis % x.ndim == x.ndim - 1 and index.shape == (*x.shape[:-1], 1) and x.flags.c_contiguous)


def _starts(shape: tuple[int, ...], width: int) -> Array:
    return (np.arange(math.prod(shape)) * width).reshape(shape)


KERNELS: dict[str, Kernel] = {
    "aten::mm": _matmul,
    "aten::bmm": _matmul,
    "aten::addmm": _addmm,
    "aten::baddbmm": _addmm,
    "aten::add": _plus(np.add),
    "aten::sub": _plus(np.subtract),
    "aten::rsub": _reversed(np.subtract),
    "aten::mul": _ufunc(np.multiply),
    "aten::div": _ufunc(np.true_divide),
    "aten::neg": _ufunc(np.negative),
    "aten::exp": _ufunc(np.exp),
    "aten::log": _ufunc(np.log),
    "aten::log1p": _ufunc(np.log1p),
    "aten::sqrt": _ufunc(np.sqrt),
    "aten::reciprocal": _ufunc(np.reciprocal),
    "aten::abs": _ufunc(np.abs),
    "aten::sgn": _ufunc(np.sign),
    "aten::sign": _ufunc(np.sign),
    "aten::maximum": _ufunc(np.maximum),
    "aten::minimum": _ufunc(np.minimum),
    "aten::tanh": _ufunc(np.tanh),
    "aten::eq": _ufunc(np.equal),
    "aten::ne": _ufunc(np.not_equal),
    "aten::lt": _ufunc(np.less),
    "aten::le": _ufunc(np.less_equal),
    "aten::gt": _ufunc(np.greater),
    "aten::ge": _ufunc(np.greater_equal),
    "aten::logical_and": _ufunc(np.logical_and),
    "aten::logical_or": _ufunc(np.logical_or),
    "aten::logical_not": _ufunc(np.logical_not),
    "aten::pow": _pow,
    "aten::relu": _relu,
    "aten::clamp": _clamp,
    "aten::sigmoid": _sigmoid,
    "aten::tanh_backward": _tanh_backward,
    "aten::addcmul": _addcmul,
    "aten::where": _where,
    "aten::masked_fill": _masked_fill,
    "aten::_to_copy": _copy,
    "aten::clone": _copy,
    "aten::copy": _copy,
    "aten::cat": _cat,
    "aten::stack": _stack,
    "aten::sum": _sum,
    "aten::mean": _mean,
    "aten::amax": _extreme(np.maximum),
    "aten::amin": _extreme(np.minimum),
    "aten::std": _std,
    "aten::_log_softmax": _log_softmax,
    "aten::_log_softmax_backward_data": _log_softmax_backward,
    "aten::gather": _gather,
    "aten::scatter_add": _scatter_add,
}
"""By the operator's name; one that changes its first argument in place has the kernel of its plain one. A kernel that
returns None, and every operator that is not here, is left to torch."""
