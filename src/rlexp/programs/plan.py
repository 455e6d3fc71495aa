"""Where the tensors of a recording lie when it runs again, and what is done in which order.

What does not depend on the inputs or on memory that changes is computed once; views cost nothing; memory is given to
another operation once it is read no more, so that a small update stays in the processor's cache.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils._pytree import tree_map

from rlexp.programs.call import Call, Step
from rlexp.programs.kernels import IN_PLACE, KERNELS
from rlexp.programs.record import Operation, Recording, storage_of, tensors_in

LINE = 64  # bytes; where memory begins
OF_METADATA = {
    "aten::ones_like", "aten::zeros_like", "aten::full_like", "aten::empty_like",
    "aten::new_zeros", "aten::new_ones", "aten::new_full", "aten::new_empty",
}  # fmt: skip
"""Operators whose result depends on the shape of what they are given, not on its numbers."""


@contextmanager
def quietly_by_torch() -> Iterator[None]:
    with np.errstate(all="ignore"), torch.no_grad():
        yield


class Plan:
    """Where each tensor of a recording lies, and what is done in which order.

    A tensor is a place in a storage: views share one, and an operation that changes its argument changes all of them.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.by_torch = False  # whether any step is torch's
        self.operations = [
            operation
            for operation in _needed(recording)
            if operation.operator._schema.is_mutable or not operation.is_view()
        ]
        made = [
            x for operation in self.operations if not operation.operator._schema.is_mutable for x in operation.results
        ]
        self._own = {storage_of(x): x for x in [*recording.inputs, *made]}
        self._memory: dict[int, ndarray] = {}
        self._free: dict[int, list[ndarray]] = {}
        for x in recording.inputs:
            self._memory[storage_of(x)] = _aligned(_bytes(x))

    def array(self, x: Tensor) -> ndarray:
        """The memory of a tensor of the recording as it lies there. What no operation made is read where it is."""
        storage = storage_of(x)
        if storage not in self._own:
            return x.detach().numpy()
        dtype = torch.empty(0, dtype=x.dtype).numpy().dtype
        if not x.numel():
            return np.empty(tuple(x.shape), dtype)  # the place may lie outside of the memory
        strides = [s * dtype.itemsize for s in x.stride()]
        offset = x.storage_offset() * dtype.itemsize
        return ndarray(tuple(x.shape), dtype, self._memory[storage], offset, strides)

    def steps(self) -> list[Step]:
        """Lays out the memory, too."""
        once = self._constants()
        last = self._last_use(once)
        steps: list[Step] = []
        for index, operation in enumerate(self.operations):
            if not operation.operator._schema.is_mutable:
                self._place(operation, last.get(index, []), keep=index in once)
            temporaries: list[ndarray] = []
            by_torch = self.by_torch
            made = self._steps_of(operation, temporaries)
            if index in once:
                self.by_torch = by_torch
                with quietly_by_torch():
                    for step in made:
                        step()
            else:
                steps += made
            for memory in temporaries:
                self._give(memory)
            for storage in last.get(index, ()):
                self._give(self._memory[storage])
        return steps

    def _place(self, operation: Operation, ended: list[int], *, keep: bool) -> None:
        """Find memory for the results: that of an argument that nobody reads afterwards, where the kernel allows it."""
        if not keep:
            for position in IN_PLACE.get(operation.operator._schema.name, ()):
                x = operation.arguments[position]
                (result,) = operation.results
                if isinstance(x, Tensor) and storage_of(x) in ended and _alike(x, result) and _alone(x, operation):
                    self._memory[storage_of(result)] = self._memory[storage_of(x)]
                    ended.remove(storage_of(x))
                    return
        for x in operation.results:
            self._memory[storage_of(x)] = _aligned(_bytes(x)) if keep else self._take(_bytes(x))

    # -------------------------------------------------------------------------------------------------------- one step

    def _steps_of(self, operation: Operation, temporaries: list[ndarray]) -> Sequence[Step]:
        operator, in_place = operation.operator, operation.operator._schema.is_mutable
        name = operator._schema.name
        kernel = KERNELS.get(name[:-1] if in_place else name)
        if kernel is not None and len(operation.results) == 1:

            def temporary(shape: Sequence[int], dtype: Any) -> ndarray:
                memory = self._take(math.prod(shape) * np.dtype(dtype).itemsize)
                temporaries.append(memory)
                return ndarray(tuple(shape), dtype, memory)

            arguments = tree_map(self._as_array, operation.arguments)
            out = arguments[0] if in_place else self.array(operation.results[0])
            steps = kernel(Call(arguments, tree_map(self._as_array, operation.keywords), out, temporary))
            if steps is not None:
                return steps
        return [self._by_torch(operation)]

    def _by_torch(self, operation: Operation) -> Step:
        self.by_torch = True
        arguments, keywords = tree_map(self._as_tensor, (operation.arguments, dict(operation.keywords)))
        operator, results = operation.operator, [self._as_tensor(x) for x in operation.results]
        if operator._schema.is_mutable:
            return lambda: operator(*arguments, **keywords)
        if [str(x.type) for x in operator._schema.returns] == ["Tensor"]:
            (result,) = results
            return lambda: result.copy_(operator(*arguments, **keywords))

        def step() -> None:
            for result, x in zip(results, tensors_in(operator(*arguments, **keywords)), strict=True):
                result.copy_(x)

        return step

    def _as_array(self, x: Any) -> Any:
        return self.array(x) if isinstance(x, Tensor) else x

    def _as_tensor(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.from_numpy(self.array(x)) if storage_of(x) in self._own else x.detach()

    # ----------------------------------------------------------------------------------------------------------- order

    def _constants(self) -> set[int]:
        """Indices of operations with the same results at each run: of nothing but constants, and changed by nobody."""
        changed = {storage_of(op.arguments[0]) for op in self.operations if op.operator._schema.is_mutable}
        constant: set[int] = set()
        found = set()
        for index, operation in enumerate(self.operations):
            if operation.operator._schema.is_mutable or any(storage_of(x) in changed for x in operation.results):
                continue
            read = [] if operation.operator._schema.name in OF_METADATA else operation.tensors()
            if all(storage_of(x) in constant for x in read):
                constant.update(storage_of(x) for x in operation.results)
                found.add(index)
        return found

    def _last_use(self, constants: set[int]) -> dict[int, list[int]]:
        """Index of an operation to the storages that are read no more after it."""
        outputs = {storage_of(x) for x in self.recording.outputs if isinstance(x, Tensor)}
        kept = outputs | {storage_of(x) for x in self.recording.inputs}
        last: dict[int, int] = {}
        for index, operation in enumerate(self.operations):
            for x in [*operation.tensors(), *operation.results]:
                last[storage_of(x)] = index
            if index in constants:
                kept.update(storage_of(x) for x in operation.results)
        ends: dict[int, list[int]] = {}
        for storage, index in last.items():
            if storage in self._own and storage not in kept:
                ends.setdefault(index, []).append(storage)
        return ends

    def _take(self, size: int) -> ndarray:
        free = self._free.get(size)
        return free.pop() if free else _aligned(size)

    def _give(self, memory: ndarray) -> None:
        self._free.setdefault(memory.size, []).append(memory)


def _needed(recording: Recording) -> list[Operation]:
    """Those that have a part in the outputs."""
    wanted = {storage_of(x) for x in recording.outputs if isinstance(x, Tensor)}
    found = []
    for operation in reversed(recording.operations):
        touched = [*operation.results, *(operation.arguments[:1] if operation.operator._schema.is_mutable else ())]
        if any(storage_of(x) in wanted for x in touched):
            wanted.update(storage_of(x) for x in operation.tensors())
            found.append(operation)
    return found[::-1]


def _alone(x: Tensor, operation: Operation) -> bool:
    """Whether no other argument lies in the same storage."""
    return sum(storage_of(y) == storage_of(x) for y in operation.tensors()) == 1


def _alike(x: Tensor, y: Tensor) -> bool:
    """Whether both fill storages of one size in the same way."""
    return (
        x.dtype == y.dtype
        and x.shape == y.shape
        and x.stride() == y.stride()
        and x.numel() * x.element_size() == _bytes(x) == _bytes(y)
    )


def _bytes(x: Tensor) -> int:
    return x.untyped_storage().nbytes()


def _aligned(size: int) -> ndarray:
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]
