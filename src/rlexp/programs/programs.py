"""The programs of a train state: each function that it is given is recorded once for each shape of its arguments."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from rlexp.programs.program import Program
from rlexp.programs.record import NotRecordable, record


class Programs:
    """Runs functions, as programs where that can be.

    Whether it can be depends on the function and on the shapes alone, so that a run that goes on from a checkpoint
    computes what one that was never stopped does.

    while_recording: makes what a function shall be called in when it is recorded.
    """

    def __init__(self, while_recording: Callable[[], AbstractContextManager[Any]]) -> None:
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

        into: memory for the first outputs, which are None in what is returned where it was used.
        """
        name = self._name(source)
        leaves, structure = tree_flatten(tuple(batch))
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        if name is None:
            return function(*batch)
        key = (purpose, name, *((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves))
        if key not in self._made:
            self._made[key] = self._program(function, tensors, leaves, structure, into)
        program = self._made[key]
        return function(*batch) if program is None else program(tensors)

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
        self,
        function: Callable[..., Any],
        tensors: Sequence[Tensor],
        leaves: Sequence[Any],
        structure: Any,
        into: Sequence[np.ndarray],
    ) -> Program | None:
        def of_tensors(*given: Tensor) -> Any:
            following = iter(given)
            return function(
                *tree_unflatten([next(following) if isinstance(x, Tensor) else x for x in leaves], structure)
            )

        try:
            with self._while_recording():
                return Program(record(of_tensors, tensors), into)
        except NotRecordable:
            return None
