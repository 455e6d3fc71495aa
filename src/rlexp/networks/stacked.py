"""Modules called with parameters that are not their own: those of one seed, or of every seed at once."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap

from rlexp.networks.layers import Linear


class Bound:
    """A module called with one seed's parameters."""

    def __init__(self, module: nn.Module, leaves: Mapping[str, Tensor]) -> None:
        self._module = module
        self._leaves = dict(leaves)

    def __call__(self, *inputs: Any) -> Any:
        return functional_call(self._module, self._leaves, inputs)


class Stacked:
    """A module called with every seed's parameters, [S, B, ...] to [S, B, ...]."""

    def __init__(self, module: nn.Module, leaves: Mapping[str, Tensor]) -> None:
        self._module = module
        self._leaves = dict(leaves)

    def __call__(self, *inputs: Tensor) -> Tensor:
        def of_one_seed(leaves: dict[str, Tensor], *slices: Tensor) -> Any:
            return functional_call(self._module, leaves, slices)

        output: Tensor = vmap(of_one_seed)(self._leaves, *inputs)
        return output


@contextmanager
def one_product(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within, the linear layers of stacked seeds are one batched product, however the BLAS rounds it.

    For what is recorded and done in NumPy, whose batched product has the numbers of each seed alone.
    """
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, Linear)]
    before = [layer.num_seeds for layer in layers]
    for layer in layers:
        layer.num_seeds = None
    try:
        yield
    finally:
        for layer, num_seeds in zip(layers, before, strict=True):
            layer.num_seeds = num_seeds
