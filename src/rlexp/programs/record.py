"""Which operations a function of tensors consists of, in the order in which torch does them.

Recorded below autograd and `torch.func.vmap`: a gradient, or a function mapped over seeds, is a straight line of
operations on plain tensors.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves

MOST = 5000
"""Operations; what has more (a recurrence over thousands of steps, say) costs more to prepare than it saves."""
REFUSED = {
    torch.Tag.nondeterministic_seeded,  # would draw the same numbers again
    torch.Tag.data_dependent_output,  # a number that was read back decided what came next
    torch.Tag.dynamic_output_shape,
}


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


class Recording(NamedTuple):
    """The tensors here keep their storages alive, so a storage tells which tensor lies where."""

    inputs: list[Tensor]
    operations: list[Operation]
    outputs: list[Any]  # the leaves of what the function returned; None and numbers are kept as they are
    structure: TreeSpec


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Recording:
    """Call `function(*inputs)`, on copies, and write down what it does.

    It must be a function of its inputs: what else it reads is taken as constant, but for memory that is changed in
    place, such as parameters.  Raises NotRecordable.
    """
    with torch.inference_mode(False):
        copies = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
        with _Recorder() as recorder:
            outputs, structure = tree_flatten(function(*copies))
    return Recording(copies, recorder.operations, outputs, structure)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

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
        if any(_changes(operator)[1:]):
            raise NotRecordable(f"{operator} changes more than its first argument")
        result = operator(*arguments, **keywords)
        operation = Operation(operator, arguments, keywords, tensors_in(result))
        if len(self.operations) == MOST:
            raise NotRecordable(f"more than {MOST} operations")
        if any(x.device.type != "cpu" or x.layout != torch.strided for x in operation.results):
            raise NotRecordable(f"{operator} is not of plain memory of this process")
        self.operations.append(operation)
        return result


@functools.cache
def _changes(operator: Any) -> list[bool]:
    """For each argument, whether it is changed in place."""
    infos = [argument.alias_info for argument in operator._schema.arguments]
    return [info is not None and info.is_write for info in infos]


def _reads_whole_numbers(operator: Any, arguments: tuple[Any, ...]) -> bool:
    """Indexing gives a shape that is known, unless it is by a mask."""
    return operator is torch.ops.aten.index.Tensor and all(
        index is None or index.dtype not in (torch.bool, torch.uint8) for index in arguments[1]
    )


def tensors_in(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
