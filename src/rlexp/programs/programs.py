"""The programs of a train state: each function that it is given is recorded once for each shape of its arguments."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor

from rlexp.programs.program import Program
from rlexp.programs.record import NotRecordable, record


class Programs:
    """Runs functions, as programs where that can be.

    Whether it can be depends on the function and on the shapes alone, so that a run that goes on from a checkpoint
    computes what one that was never stopped does.

    while_recording: makes what a function shall be called in when it is recorded.
    wanted: else every function is called as it is.
    """

    def __init__(self, while_recording: Callable[[], AbstractContextManager[Any]], *, wanted: bool) -> None:
        self._wanted = wanted
        self._while_recording = while_recording
        self._made: dict[Any, Program | None] = {}
        self._owners: dict[int, Any] = {}  # of methods; while they live nobody else has their id

    def run(
        self,
        purpose: Any,
        source: Callable[..., Any],
        function: Callable[..., Any],
        batch: Sequence[Any],
        into: Sequence[np.ndarray] = (),
    ) -> Any:
        """`function(*batch)`, which is made of `source` and of what `purpose` tells apart.

        into: memory for the tensors in the first of the two things that it returns; where it was used, that is None.
        """
        name = self._name(source) if self._wanted else None
        if name is None:
            return function(*batch)
        leaves: list[Any] = []
        _flatten(batch, leaves)
        if any(type(x) in (int, float) for x in leaves):  # a count, or a Progress, would be another program each time
            return function(*batch)
        key = (purpose, name, *[(x.shape, x.dtype) if isinstance(x, Tensor) else (x, type(x)) for x in leaves])
        try:
            program = self._made[key]
        except TypeError:  # an argument that cannot be told from others
            return function(*batch)
        except KeyError:
            program = self._made[key] = self._program(function, batch, leaves, into)
        if program is None:
            return function(*batch)
        returned = program(*[(x.detach() if x.requires_grad else x).numpy() for x in leaves if isinstance(x, Tensor)])
        return (None, returned) if into else returned

    def _name(self, source: Callable[..., Any]) -> Any:
        """What is the same function whenever it is called: a method of a frozen dataclass, or a module's function."""
        if isinstance(source, MethodType):
            owner = source.__self__
            if dataclasses.is_dataclass(owner) and owner.__dataclass_params__.frozen:  # type: ignore[union-attr]
                self._owners[id(owner)] = owner
                return id(owner), source.__func__
        elif isinstance(source, FunctionType) and "<" not in source.__qualname__:
            return source
        return None

    def _program(
        self, function: Callable[..., Any], batch: Sequence[Any], leaves: Sequence[Any], into: Sequence[np.ndarray]
    ) -> Program | None:
        def of_tensors(*tensors: Tensor) -> Any:
            following = iter(tensors)
            return function(*_filled(batch, following))

        try:
            with self._while_recording():
                return Program(record(of_tensors, [x for x in leaves if isinstance(x, Tensor)]), into=into)
        except NotRecordable:
            return None


def _flatten(batch: Sequence[Any], leaves: list[Any]) -> None:
    """Append what tuples hold, tuples in tuples, too."""
    for x in batch:
        if isinstance(x, tuple):
            _flatten(x, leaves)
        else:
            leaves.append(x)


def _filled(batch: Sequence[Any], tensors: Iterator[Tensor]) -> list[Any]:
    """The same with other tensors, in order."""
    filled: list[Any] = []
    for x in batch:
        if isinstance(x, tuple):
            parts = _filled(x, tensors)
            filled.append(type(x)(*parts) if hasattr(x, "_fields") else tuple(parts))
        else:
            filled.append(next(tensors) if isinstance(x, Tensor) else x)
    return filled
