"""NumPy kernels of torch operators, for the few thousand numbers of a small update.

A torch operation on a few hundred numbers takes 2 to 8 us, of which most is not arithmetic; a NumPy one with its memory
at hand 0.5 to 1. Products of narrow matrices and tanh are 3 to 10 times faster on some processors.
A kernel is made once from the arrays that it reads and writes, and then called without arguments.

Each gives the numbers of one seed also for stacked ones, bit for bit: products are one after the other, and sums run in
the same order.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from rlexp.programs import reductions
from rlexp.programs.call import Array, Call, Kernel, Step, is_matrix, without_whims


def _ufunc(function: np.ufunc) -> Kernel:
    """Element by element, of all arguments."""

    def kernel(call: Call) -> Sequence[Step] | None:
        if call.keywords or len(call.arguments) != function.nin:
            return None
        return [_called(function, call.arguments, call.out)]

    return kernel


COMPARISONS = {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}
LOGICAL = {np.logical_and, np.logical_or, np.logical_not}


def _called(function: np.ufunc, arguments: Sequence[Any], out: Array) -> Step:
    """Computed in the type in which torch does: that of the result, or the common one of what is compared.

    NumPy goes by the arguments: a logarithm of booleans has half precision, a reciprocal of integers is one.
    """
    plain = partial(function, *arguments, out=out, casting="unsafe")
    if function in LOGICAL:
        return plain
    compared = function in COMPARISONS
    dtype = _common(*arguments) if compared else out.dtype
    if all(x.dtype == dtype for x in arguments if isinstance(x, Array)):
        return plain
    return partial(plain, signature=(*[dtype] * function.nin, np.dtype(bool) if compared else dtype))


def _common(*arguments: Any) -> np.dtype[Any]:
    """As torch has it: a number of no dims does not make others longer."""
    a, b = (torch.from_numpy(x) if isinstance(x, Array) else x for x in arguments)
    dtype: np.dtype[Any] = torch.empty(0, dtype=torch.result_type(a, b)).numpy().dtype
    return dtype


def _reversed(function: np.ufunc) -> Kernel:
    def kernel(call: Call) -> Sequence[Step] | None:
        a, b = call.arguments[:2]
        return None if _scale(call) != 1 else [_called(function, (b, a), call.out)]

    return kernel


def _scale(call: Call) -> Any:
    """`alpha` of add and sub, which is their third argument or a keyword."""
    return call.arguments[2] if len(call.arguments) > 2 else call.keywords.get("alpha", 1)


def _plus(function: np.ufunc) -> Kernel:
    def kernel(call: Call) -> Sequence[Step] | None:
        a, b = call.arguments[:2]
        return None if _scale(call) != 1 else [_called(function, (a, b), call.out)]

    return kernel


def _pow(call: Call) -> Sequence[Step] | None:
    x, exponent = call.arguments
    if isinstance(exponent, (int, float)) and exponent == 2:
        return [_called(np.multiply, (x, x), call.out)]
    if call.out.dtype.kind != "f":
        return None  # NumPy refuses negative powers of integers
    return [_called(np.power, (x, exponent), call.out)]


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


def _threshold_backward(call: Call) -> Sequence[Step]:
    """g where the number is above the threshold, else 0"""
    (towards, x, threshold), out = call.arguments, call.out
    return [
        partial(np.greater, x, threshold, out=out, casting="unsafe"),
        partial(np.multiply, towards, out, out=out),
    ]


def _elu(call: Call) -> Sequence[Step] | None:
    """max(x, 0) + exp(min(x, 0)) − 1"""
    x, out = call.arguments[0], call.out
    if any(number != 1 for number in call.arguments[1:]):
        return None
    below = call.temporary(out.shape, out.dtype)
    return [
        partial(np.minimum, x, 0, out=below),
        partial(np.expm1, below, out=below),
        partial(np.maximum, x, 0, out=out),
        partial(np.add, out, below, out=out),
    ]


def _elu_backward(call: Call) -> Sequence[Step] | None:
    """g exp(min(x, 0)), or g (min(y, 0) + 1) of the result y"""
    (towards, *numbers, of_result, x), out = call.arguments, call.out
    if any(number != 1 for number in numbers):
        return None
    slope = partial(np.add, out, 1, out=out) if of_result else partial(np.exp, out, out=out)
    return [partial(np.minimum, x, 0, out=out), slope, partial(np.multiply, towards, out, out=out)]


def _addcmul(call: Call) -> Sequence[Step] | None:
    """a + b c"""
    (a, b, c), out = call.arguments, call.out
    if call.keywords.get("value", 1) != 1:
        return None
    product = call.temporary(out.shape, out.dtype) if a is out else out
    return [partial(np.multiply, b, c, out=product), partial(np.add, a, product, out=out)]


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
    return [partial(np.copyto, call.out, call.arguments[0], casting="unsafe")]


def _copied(call: Call) -> Sequence[Step]:
    """The second argument's numbers, in the form of the first."""
    return [partial(np.copyto, call.out, call.arguments[1], casting="unsafe")]


def _cat(call: Call) -> Sequence[Step]:
    parts, axis = (*call.arguments, 0)[:2]
    parts = [part for part in parts if part.shape != (0,)] or parts  # torch joins such with anything
    return [partial(np.concatenate, parts, axis=axis, out=call.out)]


def _stack(call: Call) -> Sequence[Step]:
    parts, axis = (*call.arguments, 0)[:2]
    axis = axis % call.out.ndim
    places = [(*(slice(None),) * axis, index, ...) for index in range(len(parts))]
    return [partial(np.copyto, call.out[place], part) for place, part in zip(places, parts, strict=True)]


# ------------------------------------------------------------------------------------------------------------- products


def _matmul(call: Call) -> Sequence[Step]:
    a, b = call.arguments[:2]
    return _product(a, b, call)


def _of_vectors(call: Call) -> Sequence[Step]:
    """As vmap makes it of stacked ones: a column, and a row in front of it."""
    (a, b), rows = call.arguments, call.out.size
    return _product(a.reshape(rows, len(b)), b.reshape(len(b), 1), call._replace(out=call.out.reshape(rows, 1)))


def _addmm(call: Call) -> Sequence[Step] | None:
    bias, a, b = call.arguments
    if call.keywords.get("beta", 1) != 1 or call.keywords.get("alpha", 1) != 1:
        return None
    out = call.out
    product = call.temporary(out.shape, out.dtype) if bias is out else out
    return [*_product(a, b, call._replace(out=product)), partial(np.add, product, bias, out=out)]


def _product(a: Array, b: Array, call: Call) -> list[Step]:
    """A B, with one inner element as an outer product: as a matrix product it takes ten times as long."""
    if a.shape[-1] == 1:
        return [partial(np.multiply, a, b, out=call.out)]
    steps: list[Step] = []
    factors = []
    for x in map(without_whims, (a, b)):
        if not is_matrix(x):
            own = call.temporary(x.shape, x.dtype)
            steps.append(partial(np.copyto, own, x))
            x = own
        factors.append(x)
    out = without_whims(call.out)
    if is_matrix(out) and out.strides[-1] == out.itemsize:
        return [*steps, partial(np.matmul, *factors, out=out)]
    own = call.temporary(call.out.shape, call.out.dtype)
    return [*steps, partial(np.matmul, *factors, out=own), partial(np.copyto, call.out, own)]


KERNELS: dict[str, Kernel] = {
    "aten::mm": _matmul,
    "aten::bmm": _matmul,
    "aten::mv": _of_vectors,
    "aten::dot": _of_vectors,
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
    "aten::threshold_backward": _threshold_backward,
    "aten::elu": _elu,
    "aten::elu_backward": _elu_backward,
    "aten::addcmul": _addcmul,
    "aten::where": _where,
    "aten::masked_fill": _masked_fill,
    "aten::_to_copy": _copy,
    "aten::clone": _copy,
    "aten::copy": _copied,
    "aten::cat": _cat,
    "aten::stack": _stack,
    "aten::sum": reductions.sum_,
    "aten::mean": reductions.mean,
    "aten::amax": reductions.extreme(np.maximum),
    "aten::amin": reductions.extreme(np.minimum),
    "aten::std": reductions.std,
    "aten::_log_softmax": reductions.log_softmax,
    "aten::_log_softmax_backward_data": reductions.log_softmax_backward,
    "aten::argmax": reductions.argmax,
    "aten::gather": reductions.gather,
    "aten::scatter_add": reductions.scatter_add,
}
"""By the operator's name; one that changes its first argument in place has the kernel of its plain one. A kernel that
returns None, and every operator that is not here, is left to torch."""

_FIRST = ["neg", "exp", "log", "log1p", "sqrt", "reciprocal", "abs", "sgn", "tanh", "relu", "clamp"]
_EITHER = ["add", "sub", "mul", "div", "maximum", "minimum"]
IN_PLACE: dict[str, tuple[int, ...]] = {
    **{f"aten::{name}": (0,) for name in _FIRST},
    **{f"aten::{name}": (0, 1) for name in _EITHER},
    "aten::tanh_backward": (1,),
}
"""Positions of the arguments whose memory the result may have: each number is read before its place is written."""
