"""A recorded function that runs again: each operation is a call of a NumPy kernel, or of torch, on memory laid out
before.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import numpy as np
from numpy import copyto, ndarray
from torch import Tensor, from_numpy
from torch.utils._pytree import TreeSpec

from rlexp.programs.plan import Plan, quietly_by_torch
from rlexp.programs.record import NotRecordable, Recording, storage_of


class Program:
    """Called with the inputs' present numbers; returns what the function would, in memory of its own.

    kind: what is made of each array that is returned.
    into: memory for all tensors in the first of the two things that the function returns; the second is returned then.
    """

    def __init__(
        self, recording: Recording, kind: Callable[[ndarray], Any] = from_numpy, into: Sequence[ndarray] = ()
    ) -> None:
        self._kind = kind
        plan = Plan(recording)
        self._steps = tuple(plan.steps())
        self._within = quietly_by_torch if plan.by_torch else _quietly
        read = {storage_of(x) for operation in plan.operations for x in operation.tensors()}
        read |= {storage_of(x) for x in recording.outputs if isinstance(x, Tensor)}
        self._inputs = [(i, plan.array(x)) for i, x in enumerate(recording.inputs) if storage_of(x) in read]
        outputs = [plan.array(x) if isinstance(x, Tensor) else x for x in recording.outputs]
        self._copies = list(zip(into, outputs[: len(into)], strict=True))
        self._outputs = outputs[len(into) :]
        structure = recording.structure.child(1) if into else recording.structure
        self._rebuilt = _builder(structure, count())

    def __call__(self, *inputs: Any) -> Any:
        """inputs: arrays or numbers."""
        for i, memory in self._inputs:
            copyto(memory, inputs[i])
        with self._within():
            for step in self._steps:
                step()
        for to, x in self._copies:
            copyto(to, x)
        kind = self._kind
        return self._rebuilt([kind(x.copy()) if isinstance(x, ndarray) else x for x in self._outputs])


def _quietly() -> AbstractContextManager[None]:
    """What is not finite is found afterwards, where it is said of which seed and environment."""
    return np.errstate(all="ignore")


def _builder(structure: TreeSpec, places: Iterator[int]) -> Callable[[Sequence[Any]], Any]:
    """What puts a list of leaves into a structure; torch's own way takes ten times as long."""
    if structure.is_leaf():
        place = next(places)
        return lambda leaves: leaves[place]
    parts = [_builder(child, places) for child in structure.children()]
    if structure.type is dict:
        named = list(zip(structure.context, parts, strict=True))
        return lambda leaves: {name: part(leaves) for name, part in named}
    if structure.type in (list, tuple):
        kind = structure.type
        return lambda leaves: kind([part(leaves) for part in parts])
    build = structure.context if structure.type is namedtuple else None
    if build is None:
        raise NotRecordable(f"returns a {structure.type}")
    return lambda leaves: build(*[part(leaves) for part in parts])
