"""NumPy kernels that do not go number by number: sums, extremes, and what looks along the last axis."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from rlexp.programs.call import Array, Call, Kernel, Step, is_matrix, without_whims


def _axes(call: Call) -> tuple[int, ...]:
    given = call.arguments[1] if len(call.arguments) > 1 else call.keywords.get("dim")
    ndim = call.arguments[0].ndim
    if given is None or given == []:
        return tuple(range(ndim))
    return tuple(axis % ndim for axis in ([given] if isinstance(given, int) else given)) if ndim else ()


def sum_(call: Call) -> Sequence[Step]:
    return _reduced(np.add, call.arguments[0], _axes(call), call)


def mean(call: Call) -> Sequence[Step]:
    x, axes = call.arguments[0], _axes(call)
    count = math.prod(x.shape[axis] for axis in axes)
    return [*sum_(call), partial(np.true_divide, call.out, count, out=call.out)]


def extreme(function: np.ufunc) -> Kernel:
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
    if axes == tuple(range(kept, x.ndim)):
        if not x.flags.c_contiguous:  # NumPy would add in an order that depends on how it lies
            own = call.temporary(x.shape, x.dtype)
            return [partial(np.copyto, own, x), *_reduced(function, own, axes, call)]
        rows, flat = x.reshape(*lead, math.prod(x.shape[kept:])), out.reshape(lead)
        if 1 < rows.shape[-1] <= FEW and x.dtype == out.dtype:
            steps: list[Step] = [partial(function, rows[..., 0], rows[..., 1], out=flat)]
            return [*steps, *(partial(function, flat, rows[..., i], out=flat) for i in range(2, rows.shape[-1]))]
        return [partial(function.reduce, rows, axis=-1, dtype=out.dtype, out=flat)]
    if x.ndim > 1:
        x = without_whims(x)
    if function is np.add and axes == (x.ndim - 2,) and is_matrix(x) and x.dtype == out.dtype == np.float32:
        ones = np.ones((1, x.shape[-2]), x.dtype)
        return [partial(np.matmul, ones, x, out=out.reshape(*x.shape[:-2], 1, x.shape[-1]))]
    keep = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return [partial(function.reduce, x, axis=axes, dtype=out.dtype, out=out.reshape(keep), keepdims=True)]


def std(call: Call) -> Sequence[Step] | None:
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


def log_softmax(call: Call) -> Sequence[Step] | None:
    """x − max − log Σ exp(x − max)"""
    x, axis, to_float = call.arguments
    if x.ndim == 0 or axis % x.ndim != x.ndim - 1 or to_float:
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


def log_softmax_backward(call: Call) -> Sequence[Step] | None:
    """g − exp(y) Σ g"""
    towards, y, axis, _ = call.arguments
    if y.ndim == 0 or axis % y.ndim != y.ndim - 1:
        return None
    out, one = call.out, call.temporary(y.shape[:-1], y.dtype)
    return [
        *_reduced(np.add, towards, (y.ndim - 1,), call._replace(out=one)),
        partial(np.exp, y, out=out),
        partial(np.multiply, out, one[..., None], out=out),
        partial(np.subtract, towards, out, out=out),
    ]


def argmax(call: Call) -> Sequence[Step] | None:
    x, axis = (*call.arguments, None)[:2]
    if axis is None or call.keywords or len(call.arguments) > 2 or not call.out.flags.c_contiguous:
        return None
    return [partial(x.argmax, axis, call.out)]


def gather(call: Call) -> Sequence[Step] | None:
    x, axis, index = call.arguments[:3]
    if not _one_of_each_row(x, axis, index):
        return None
    flat, place = x.reshape(-1), call.temporary(index.shape, np.int64)
    return [
        partial(_refuse_outside, index, x.shape[-1]),
        partial(np.add, index, _starts(index.shape, x.shape[-1]), out=place),
        partial(np.take, flat, place, out=call.out, mode="clip"),  # any other mode copies first
    ]


def scatter_add(call: Call) -> Sequence[Step] | None:
    x, axis, index, source = call.arguments
    if not _one_of_each_row(call.out, axis, index):
        return None
    flat, place = call.out.reshape(-1), call.temporary(index.shape, np.int64)
    read = call.temporary(index.shape, x.dtype)
    return [
        partial(_refuse_outside, index, x.shape[-1]),
        partial(np.copyto, call.out, x),
        partial(np.add, index, _starts(index.shape, x.shape[-1]), out=place),
        partial(np.take, flat, place, out=read, mode="clip"),
        partial(np.add, read, source, out=read),
        partial(np.put, flat, place, read),
    ]


def _one_of_each_row(x: Array, axis: int, index: Array) -> bool:
    return bool(x.ndim and axis % x.ndim == x.ndim - 1 and index.shape == (*x.shape[:-1], 1) and x.flags.c_contiguous)


def _refuse_outside(index: Array, width: int) -> None:
    """As torch does: another row's number would pass for this one's."""
    if index.size and index.view(np.uint64).max() >= width:  # a negative one is a large one without a sign
        raise IndexError(f"index {int(index.min())} to {int(index.max())} of {width} numbers")


def _starts(shape: tuple[int, ...], width: int) -> Array:
    return (np.arange(math.prod(shape)) * width).reshape(shape)
