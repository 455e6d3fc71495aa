"""Flat parameters and the steps on them.

Each network's parameters lie in one tensor, [P], or [S, P] for S stacked seeds; what its modules compute with are views
of it. One fused optimizer step and one norm for each network are then one operation each (a small update is bound by
the number of operations).
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from rlexp.ranges import POSITIVE
from rlexp.types import Progress, Schedule


@dataclass(frozen=True)
class Optimization:
    """How one network is stepped: a rule of torch.optim, a learning rate, and a bound on the gradient's norm."""

    _: KW_ONLY
    rule: Callable[..., torch.optim.Optimizer]
    learning_rate: Annotated[Schedule, POSITIVE]
    max_grad_norm: Annotated[float, POSITIVE] | None


class Flat:
    """The parameters of one network.

    Args:
        module: its structure. Alone, its parameters become views of `values`; of stacked seeds it holds none.
        values: [*S, P], in the order of the module's parameters.
        memory: of that shape, where they shall lie; None: in memory of their own.
    """

    def __init__(self, module: nn.Module, values: Tensor, memory: Tensor | None = None) -> None:
        module.to(values.device)
        stacked = values.dim() > 1
        self.values = aligned(values) if memory is None else memory.copy_(values)
        self.gradient = aligned(torch.zeros_like(values))
        self.leaves: dict[str, Tensor] = {}  # [*S, *shape], views of the values
        for (name, view), p in zip(views(module, self.values).items(), module.parameters(), strict=True):
            if not stacked:
                p.data = view
            self.leaves[name] = view.detach().requires_grad_() if stacked else p
        self.slots: list[np.ndarray] = []  # each leaf's part of the gradient, on the CPU
        if values.device.type == "cpu":
            self.slots = [view.numpy() for view in views(module, self.gradient).values()]

    def collect(self, gradients: Sequence[Tensor]) -> None:
        """Take over the gradient of each leaf."""
        lead = self.gradient.shape[:-1]
        torch.cat([g.reshape(*lead, -1) for g in gradients], dim=-1, out=self.gradient)

    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """Values and gradient of each seed, [P]."""
        if self.values.dim() == 1:
            return [(self.values, self.gradient)]
        return list(zip(self.values.unbind(0), self.gradient.unbind(0), strict=True))


def views(module: nn.Module, values: Tensor) -> dict[str, Tensor]:
    """The module's parameters by name, [*S, *shape], as views of flat values [*S, P]."""
    found, offset = {}, 0
    for name, p in module.named_parameters():
        found[name] = values[..., offset : offset + p.numel()].view((*values.shape[:-1], *p.shape))
        offset += p.numel()
    return found


def aligned(values: Tensor) -> Tensor:
    """A copy, [*S, P], in which every seed's row begins on a cache line, as memory of its own does.

    Matrix products round by how their operands lie: without it a seed would differ from itself alone, in a last bit.
    """
    line = 64 // values.element_size()
    size = values.shape[-1]
    padded = values.new_zeros(*values.shape[:-1], -(-size // line) * line)
    padded[..., :size] = values
    return padded[..., :size]


class Trained:
    """A network that an optimizer steps; each seed has its own moments and count of steps."""

    def __init__(self, flat: Flat, optimization: Optimization) -> None:
        self.flat = flat
        self.schedule = optimization.learning_rate
        self.max_grad_norm = optimization.max_grad_norm
        self._rows = []
        for values, gradient in flat.rows():
            values.grad = gradient
            self._rows.append(values)
        self.optimizer = optimization.rule(self._rows, lr=1e-3)  # the schedule sets it before each step
        self._optimizer_step = _without_hooks(self.optimizer)
        self._lr = -1.0

    def step(self, progress: Progress) -> Tensor:
        """Clip each seed's gradient to the norm, and step. Returns the norms before clipping, [*S]."""
        norm = self._clip()
        learning_rate = self.schedule(progress)
        if learning_rate != self._lr:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self._lr = learning_rate
        self._optimizer_step()
        return norm

    def _clip(self) -> Tensor:
        """Bound the norm of each seed's gradient; returns what it was, [*S]."""
        gradient, bound = self.flat.gradient, self.max_grad_norm
        if gradient.device.type != "cpu":
            norm: Tensor = torch.linalg.vector_norm(gradient, dim=-1)
            if bound is not None:
                gradient.mul_((bound / (norm + 1e-6)).clamp_(max=1.0).unsqueeze(-1))
            return norm
        array = gradient.numpy()  # in NumPy, and nothing is multiplied by one: 5 us in place of 13
        with np.errstate(all="ignore"):  # what is not finite is found by who looks at the row
            norms = np.empty(array.shape[:-1], array.dtype)
            np.sqrt(np.vecdot(array, array), out=norms)
            if bound is not None and not norms.max() < 0.999 * bound:  # else all factors would be one
                factor = np.minimum(np.float32(bound) / (norms + np.float32(1e-6)), np.float32(1))
                if not (factor == 1).all():
                    array *= factor[..., None]
        return torch.from_numpy(norms)

    def buffers(self) -> list[list[Tensor]]:
        """For each seed, all tensors that a step changes."""
        held = [self.optimizer.state.get(row, {}) for row in self._rows]
        return [
            [row, *(value for value in moments.values() if isinstance(value, Tensor))]
            for row, moments in zip(self._rows, held, strict=True)
        ]

    def undo(self, before: Sequence[Sequence[Tensor]], active: Tensor) -> None:
        """Put back what `buffers` were, for the seeds whose `active` [*S] is 0.

        A zeroed gradient would not do: moments decay, and Adam steps by them.
        """
        for row, old, keep in zip(self.buffers(), before, active.reshape(-1).unbind(0), strict=True):
            for index, buffer in enumerate(row):
                # The first step makes the moments: before it they were zero.
                was = old[index] if index < len(old) else torch.zeros_like(buffer)
                buffer.copy_(torch.where(keep > 0, buffer, was))


def _without_hooks(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without torch's wrapper for hooks and profiler labels: 89 us in place of 158 for a fused Adam.

    torch marks the steps that it wrapped as `hooked`; any other is called as it is. A second wrapper switches gradients
    off, as here, and imports torch's compiler.
    """
    step: Any = type(optimizer).step
    if not getattr(step, "hooked", False):
        return optimizer.step
    plain = step.__wrapped__
    code = getattr(plain, "__code__", None)
    if getattr(code, "co_name", "") == "_use_grad" and not optimizer.defaults.get("differentiable", True):
        plain = torch.no_grad()(plain.__wrapped__)
    return partial(plain, optimizer)


def _spare_the_compiler() -> None:
    """torch's optimizers import its compiler, which takes a second, only to keep it out of these methods.

    They look on the method for what the compiler made of it: here the method itself, as nothing compiles optimizers.
    """
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)


_spare_the_compiler()
