"""Which operations a function of tensors consists of, in the order in which torch does them.

Recorded below autograd and `torch.func.vmap`: a gradient, or a function mapped over seeds, is a straight line of
operations on plain tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves

MOST = 5000
"""Operations; what has more (a recurrence over thousands of steps, say) costs more to prepare than it saves."""
REFUSED = {
    torch.Tag.nondeterministic_seeded,  # would draw the same numbers again
    torch.Tag.data_dependent_output,  # a number that was read back decided what came next
    torch.Tag.dynamic_output_shape,
}
READ_BACK = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__}
"""Numbers leave torch by these without an operation."""
DTYPES = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.float32, torch.float64,
}  # fmt: skip
"""Those whose kernels are known to be right."""


class NotRecordable(Exception):
    """The function is not a fixed line of operations."""


class Operation(NamedTuple):
    """One call of a torch operator; arguments and results are the very tensors that it had."""

    operator: Any
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    results: list[Tensor]

    def tensors(self) -> list[Tensor]:
        """Those it is given."""
        return tensors_in((self.arguments, self.keywords))

    def is_view(self) -> bool:
        """Whether all results lie in what it is given."""
        given = {storage_of(x) for x in self.tensors()}
        return bool(self.results) and all(storage_of(x) in given for x in self.results)


class Recording(NamedTuple):
    """The tensors here keep their storages alive, so a storage tells which tensor lies where."""

    inputs: list[Tensor]
    operations: list[Operation]
    outputs: list[Any]  # the leaves of what the function returned; None, numbers and strings are kept as they are
    structure: TreeSpec


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Recording:
    """Call `function(*inputs)`, on copies, and write down what it does.

    It must be a function of its inputs: what else it reads is taken as constant, but for memory that is changed in
    place, such as parameters.  Raises NotRecordable, also for an error of the function's own: called as it is, it says
    what is wrong, or can do with numbers what it cannot do with tensors.
    """
    with torch.inference_mode(False):
        copies = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
        try:
            with _Reading(), _Recorder(copies) as recorder:
                outputs, structure = tree_flatten(function(*copies))
        except NotRecordable:
            raise
        except Exception as error:
            raise NotRecordable(f"{type(error).__name__}: {error}") from error
    for x in outputs:
        if not isinstance(x, (Tensor, int, float, str, type(None))):
            raise NotRecordable(f"returns a {type(x).__name__}")
    return Recording(copies, recorder.operations, outputs, structure)


class _Reading(TorchFunctionMode):
    """Refuses what the recorder below does not see."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        if function in READ_BACK:
            raise NotRecordable(f"{function.__name__} reads numbers back")
        return function(*arguments, **(keywords or {}))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._made = {storage_of(x) for x in inputs}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would import its compiler, which takes a second, to keep it out of what follows."""
        return False

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        if REFUSED & set(operator.tags) and not _reads_whole_numbers(operator, arguments):
            raise NotRecordable(f"{operator} gives other results each time")
        if operator._schema.is_mutable:
            self._check_change(operator, arguments)
        result = operator(*arguments, **keywords)
        operation = Operation(operator, arguments, keywords, tensors_in(result))
        if len(self.operations) == MOST:
            raise NotRecordable(f"more than {MOST} operations")
        for x in operation.results:
            if x.device.type != "cpu" or x.layout != torch.strided or x.dtype not in DTYPES:
                raise NotRecordable(f"{operator} is not of plain memory of this process")
        if not operation.is_view():
            self._made.update(storage_of(x) for x in operation.results)
        self.operations.append(operation)
        return result

    def _check_change(self, operator: Any, arguments: tuple[Any, ...]) -> None:
        """What is changed must be the first argument alone, and made here: else it would be changed again and again."""
        first, *others = (x.alias_info is not None and x.alias_info.is_write for x in operator._schema.arguments)
        if not first or any(others) or not isinstance(arguments[0], Tensor):
            raise NotRecordable(f"{operator} changes other things than its first argument")
        if storage_of(arguments[0]) not in self._made:
            raise NotRecordable(f"{operator} changes what was not made here")


def _reads_whole_numbers(operator: Any, arguments: tuple[Any, ...]) -> bool:
    """Indexing gives a shape that is known, unless it is by a mask."""
    return operator is torch.ops.aten.index.Tensor and all(
        index is None or index.dtype not in (torch.bool, torch.uint8) for index in arguments[1]
    )


def storage_of(x: Tensor) -> int:
    storage: int = x.untyped_storage()._cdata
    return storage


def tensors_in(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
