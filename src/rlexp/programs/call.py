"""What a kernel is made from."""

from collections.abc import Callable, Mapping, Sequence
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
"""What does an operator's work, step by step; None: not with these arguments."""


def without_whims(x: Array) -> Array:
    """The same matrices. The stride of an axis of one element means nothing, but BLAS and `is_matrix` go by it, and it
    may be another where seeds are stacked."""
    (rows, columns), (of_row, of_column) = x.shape[-2:], x.strides[-2:]
    of_column = x.itemsize if columns == 1 else of_column
    of_row = max(columns, 1) * of_column if rows == 1 else of_row
    return np.lib.stride_tricks.as_strided(x, strides=(*x.strides[:-2], of_row, of_column))


def is_matrix(x: Array) -> bool:
    """Whether BLAS takes it as it lies: rows or columns without gaps, which do not overlap."""
    (rows, columns), (of_row, of_column) = x.shape[-2:], (s // x.itemsize for s in x.strides[-2:])
    return (of_column == 1 and of_row >= columns) or (of_row == 1 and of_column >= rows)
