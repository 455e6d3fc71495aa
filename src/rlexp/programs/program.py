"""A recorded function that runs again: each operation a call of a NumPy kernel, or of torch, on memory laid out before.

What does not depend on the inputs or on memory that changes is computed once; views cost nothing; memory is given to
another operation once it is read no more, so that a small update stays in the processor's cache.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_unflatten

from rlexp.programs.kernels import KERNELS, Call, Step
from rlexp.programs.record import Operation, Recording, tensors_in

LINE = 64  # bytes; where memory begins
OF_METADATA = {
    "aten::ones_like", "aten::zeros_like", "aten::full_like", "aten::empty_like",
    "aten::new_zeros", "aten::new_ones", "aten::new_full", "aten::new_empty",
}  # fmt: skip
"""Operators whose result depends on the shape of what they are given, not on its numbers."""


class Program:
    """Called with the inputs' present numbers; returns what the function would, in memory of its own.

    into: memory for the first outputs, which are then None in what is returned.
    """

    def __init__(self, recording: Recording, into: Sequence[np.ndarray] = ()) -> None:
        plan = _Plan(recording)
        self._inputs = [plan.array(x) for x in recording.inputs]
        self._steps = tuple(plan.steps())
        self._structure = recording.structure
        outputs = [plan.array(x) if isinstance(x, Tensor) else x for x in recording.outputs]
        self._copies = list(zip(into, outputs[: len(into)], strict=True))
        self._returned = [*(None for _ in into), *outputs[len(into) :]]

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        for memory, x in zip(self._inputs, inputs, strict=True):
            np.copyto(memory, x.numpy())
        with np.errstate(all="ignore"), torch.no_grad():
            for step in self._steps:
                step()
        for to, x in self._copies:
            np.copyto(to, x)
        return tree_unflatten([_new(x) for x in self._returned], self._structure)


def _new(x: Any) -> Any:
    return torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x


class _Plan:
    """Where each tensor of a recording lies, and what is done in which order.

    A tensor is a place in a storage: views share one, and an operation that changes its argument changes all of them.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._operations = [
            operation
            for operation in _needed(recording)
            if operation.operator._schema.is_mutable or not _is_view(operation)
        ]
        made = [x for operation in self._operations if not operation.operator._schema.is_mutable for x in operation.results]
        self._own = {_storage(x): x for x in [*recording.inputs, *made]}
        self._memory: dict[int, np.ndarray] = {}
        self._free: dict[int, list[np.ndarray]] = {}
        for x in recording.inputs:
            self._memory[_storage(x)] = _aligned(_bytes(x))

    def array(self, x: Tensor) -> np.ndarray:
        """The memory of a tensor of the recording as it lies there. What no operation made is read where it is."""
        storage = _storage(x)
        if storage not in self._own:
            return x.detach().numpy()
        dtype = torch.empty(0, dtype=x.dtype).numpy().dtype
        strides = [s * dtype.itemsize for s in x.stride()]
        offset = x.storage_offset() * dtype.itemsize
        return np.ndarray(tuple(x.shape), dtype, self._memory[storage], offset, strides)

    def steps(self) -> list[Step]:
        """Lays out the memory, too."""
        last = self._last_use()
        once, steps = self._constants(), []
        for index, operation in enumerate(self._operations):
            if not operation.operator._schema.is_mutable:
                for x in operation.results:
                    keep = operation in once
                    self._memory[_storage(x)] = _aligned(_bytes(x)) if keep else self._take(_bytes(x))
            temporaries: list[np.ndarray] = []
            made = self._steps_of(operation, temporaries)
            if operation in once:
                with np.errstate(all="ignore"), torch.no_grad():
                    for step in made:
                        step()
            else:
                steps += made
            for memory in temporaries:
                self._give(memory)
            for storage in last.get(index, ()):
                self._give(self._memory[storage])
        return steps

    # -------------------------------------------------------------------------------------------------------- one step

    def _steps_of(self, operation: Operation, temporaries: list[np.ndarray]) -> Sequence[Step]:
        operator, in_place = operation.operator, operation.operator._schema.is_mutable
        name = operator._schema.name
        kernel = KERNELS.get(name[:-1] if in_place else name)
        if kernel is not None and len(operation.results) == 1:

            def temporary(shape: Sequence[int], dtype: Any) -> np.ndarray:
                memory = self._take(math.prod(shape) * np.dtype(dtype).itemsize)
                temporaries.append(memory)
                return np.ndarray(tuple(shape), dtype, memory)

            arguments = tree_map(self._as_array, operation.arguments)
            out = arguments[0] if in_place else self.array(operation.results[0])
            steps = kernel(Call(arguments, tree_map(self._as_array, operation.keywords), out, temporary))
            if steps is not None:
                return steps
        return [self._by_torch(operation)]

    def _by_torch(self, operation: Operation) -> Step:
        arguments, keywords = tree_map(self._as_tensor, (operation.arguments, dict(operation.keywords)))
        operator, results = operation.operator, [self._as_tensor(x) for x in operation.results]
        if operator._schema.is_mutable:
            return lambda: operator(*arguments, **keywords)

        def step() -> None:
            for result, x in zip(results, tensors_in(operator(*arguments, **keywords)), strict=True):
                result.copy_(x)

        return step

    def _as_array(self, x: Any) -> Any:
        return self.array(x) if isinstance(x, Tensor) else x

    def _as_tensor(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.from_numpy(self.array(x)) if _storage(x) in self._own else x.detach()

    # ----------------------------------------------------------------------------------------------------------- order

    def _constants(self) -> "_Same":
        """Operations whose results are the same at each run: of nothing but constants, and changed by nobody."""
        changed = {_storage(op.arguments[0]) for op in self._operations if op.operator._schema.is_mutable}
        constant: set[int] = set()
        found = _Same()
        for operation in self._operations:
            if operation.operator._schema.is_mutable or any(_storage(x) in changed for x in operation.results):
                continue
            read = [] if operation.operator._schema.name in OF_METADATA else operation.tensors()
            if all(_storage(x) in constant for x in read):
                constant.update(_storage(x) for x in operation.results)
                found.add(operation)
        return found

    def _last_use(self) -> dict[int, list[int]]:
        """Index of an operation to the storages that are read no more after it."""
        outputs = {_storage(x) for x in self.recording.outputs if isinstance(x, Tensor)}
        constant = self._constants()
        kept = outputs | {_storage(x) for x in self.recording.inputs}
        last: dict[int, int] = {}
        for index, operation in enumerate(self._operations):
            for x in [*operation.tensors(), *operation.results]:
                last[_storage(x)] = index
            if operation in constant:
                kept.update(_storage(x) for x in operation.results)
        ends: dict[int, list[int]] = {}
        for storage, index in last.items():
            if storage in self._own and storage not in kept:
                ends.setdefault(index, []).append(storage)
        return ends

    def _take(self, size: int) -> np.ndarray:
        free = self._free.get(size)
        return free.pop() if free else _aligned(size)

    def _give(self, memory: np.ndarray) -> None:
        self._free.setdefault(memory.size, []).append(memory)


class _Same:
    """A set of operations, which are told apart by being the same one: their tensors do not compare."""

    def __init__(self) -> None:
        self._ids: set[int] = set()

    def add(self, operation: Operation) -> None:
        self._ids.add(id(operation))

    def __contains__(self, operation: Operation) -> bool:
        return id(operation) in self._ids


def _needed(recording: Recording) -> list[Operation]:
    """Those that have a part in the outputs."""
    wanted = {_storage(x) for x in recording.outputs if isinstance(x, Tensor)}
    found = []
    for operation in reversed(recording.operations):
        touched = [*operation.results, *(operation.arguments[:1] if operation.operator._schema.is_mutable else ())]
        if any(_storage(x) in wanted for x in touched):
            wanted.update(_storage(x) for x in operation.tensors())
            found.append(operation)
    return found[::-1]


def _is_view(operation: Operation) -> bool:
    given = {_storage(x) for x in operation.tensors()}
    return bool(operation.results) and all(_storage(x) in given for x in operation.results)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _bytes(x: Tensor) -> int:
    return x.untyped_storage().nbytes()


def _aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


