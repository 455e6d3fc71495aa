"""TrainState: the only owner of parameters, optimizers, targets and the algorithm's random streams.

    metrics = state.minimize(("actor", "critic"), algorithm.loss, batch)     # loss(nets, batch) -> (scalar, metrics)

Each network's parameters lie in one flat tensor; the modules' parameters are views of it. One fused optimizer step and
one norm for each network are then one operation each (a small update is bound by the number of operations).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor, nn

from rlexp.networks.acting import numpy_forward
from rlexp.networks.layers import initialise
from rlexp.ranges import POSITIVE
from rlexp.streams import Stream, derive_seed
from rlexp.types import Metrics, Noise, Progress, Schedule

Loss = Callable[..., tuple[Tensor, Metrics]]
Batch = TypeVar("Batch", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Optimization:
    """How one network is stepped: a rule of torch.optim, a learning rate, and a bound on the gradient's norm."""

    _: KW_ONLY
    rule: Callable[..., torch.optim.Optimizer]
    learning_rate: Annotated[Schedule, POSITIVE]
    max_grad_norm: Annotated[float, POSITIVE] | None


class Flat:
    """The parameters of one network as views of one tensor, [P], and a gradient of the same shape."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        module.to(device)
        self.leaves = list(module.parameters())
        self.values = torch.cat([p.detach().reshape(-1) for p in self.leaves])
        self.gradient = torch.zeros_like(self.values)
        offset = 0
        for p in self.leaves:
            p.data = self.values[offset : offset + p.numel()].view_as(p)
            offset += p.numel()


def _without_hooks(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without torch's wrapper for hooks and profiler labels: 89 us in place of 158 for a fused Adam.

    torch marks the steps that it wrapped as `hooked`; any other is called as it is.
    """
    step: Any = type(optimizer).step
    return partial(step.__wrapped__, optimizer) if getattr(step, "hooked", False) else optimizer.step


class Trained:
    """A network that an optimizer steps."""

    def __init__(self, flat: Flat, optimization: Optimization) -> None:
        self.flat = flat
        self.schedule = optimization.learning_rate
        self.max_grad_norm = optimization.max_grad_norm
        flat.values.grad = flat.gradient
        self.optimizer = optimization.rule([flat.values], lr=1e-3)  # the schedule sets it before each step
        self._optimizer_step = _without_hooks(self.optimizer)
        self._lr = -1.0

    def step(self, gradients: Sequence[Tensor], progress: Progress) -> Tensor:
        """Clip to the norm and step. Returns the norm before clipping, 0-d."""
        gradient = self.flat.gradient
        torch.cat([g.reshape(-1) for g in gradients], out=gradient)
        norm: Tensor = torch.linalg.vector_norm(gradient)
        if self.max_grad_norm is not None:
            gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        learning_rate = self.schedule(progress)
        if learning_rate != self._lr:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self._lr = learning_rate
        self._optimizer_step()
        return norm

    def buffers(self) -> list[Tensor]:
        """All tensors that a step changes."""
        held = self.optimizer.state.get(self.flat.values, {})
        return [self.flat.values, *(value for value in held.values() if isinstance(value, Tensor))]


class TrainState:
    """Parameters and what steps them.

    Args:
        networks: name to module, as the algorithm made them; their weights are drawn here.
        targets: name of a copy to the name of its source.
        optimizations: name to Optimization, for each network that is stepped.
        seed: of the streams "initialisation" and all that `stream` hands out.
        device: where the parameters live.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        targets: Mapping[str, str],
        optimizations: Mapping[str, Optimization],
        *,
        seed: int,
        device: torch.device,
        total_env_steps: int,
    ) -> None:
        self.progress = Progress(0, 0, total_env_steps)
        self.device = device
        self._seed = seed
        self._streams: dict[str, Stream] = {}
        self.modules = dict(networks)
        self.flats: dict[str, Flat] = {}
        for index, (name, module) in enumerate(networks.items()):
            initialise(module, torch.Generator().manual_seed(derive_seed(seed, "initialisation", index)))
            self.flats[name] = Flat(module, device)
        for target, source in targets.items():
            self.flats[target].values.copy_(self.flats[source].values)
            self.modules[target].requires_grad_(False)
        self.trained = {name: Trained(self.flats[name], how) for name, how in optimizations.items()}
        self.nets = SimpleNamespace(**self.modules)

    # ---------------------------------------------------------------------------------------------------- learning

    def minimize(self, names: str | Sequence[str], loss: Loss, *batch: Any, active: Tensor | None = None) -> Metrics:
        """One gradient step of `loss(nets, *batch) -> (scalar, metrics)` on the named networks and on no others.

        active: a 0-d mask; where it is 0 the parameters and the optimizer's moments stay as they were.
        Returns the loss's metrics and `optimizer/grad_norm_<network>`, before clipping.
        """
        networks = [(name, self.trained[name]) for name in ([names] if isinstance(names, str) else names)]
        value, metrics = loss(self.nets, *batch)
        leaves = [p for _, network in networks for p in network.flat.leaves]
        gradients = torch.autograd.grad(value, leaves)
        if active is not None:
            before = {buffer: buffer.clone() for _, network in networks for buffer in network.buffers()}
        start = 0
        for name, network in networks:
            stop = start + len(network.flat.leaves)
            metrics[f"optimizer/grad_norm_{name}"] = network.step(gradients[start:stop], self.progress)
            start = stop
        if active is not None:
            for buffer in (buffer for _, network in networks for buffer in network.buffers()):
                # The first step makes the moments: before it they were zero.
                old = before[buffer] if buffer in before else torch.zeros_like(buffer)
                buffer.copy_(torch.where(active > 0, buffer, old))
        self.progress = self.progress._replace(updates=self.progress.updates + 1)
        return metrics

    @torch.no_grad()
    def replace(self, name: str, rule: Callable[..., tuple[Mapping[str, Tensor], Metrics]], *batch: Any) -> Metrics:
        """Set a network's leaves to `rule(nets, *batch) -> (new leaves by name, metrics)`, without an optimizer."""
        new, metrics = rule(self.nets, *batch)
        leaves = dict(self.modules[name].named_parameters())
        for leaf, value in new.items():
            leaves[leaf].copy_(value)
        self.progress = self.progress._replace(updates=self.progress.updates + 1)
        return metrics

    @torch.no_grad()
    def track(self, target: str, source: str, tau: float) -> None:
        """target ← tau source + (1 − tau) target; tau = 1 copies."""
        self.flats[target].values.lerp_(self.flats[source].values, tau)

    @torch.no_grad()
    def evaluate(self, function: Callable[..., Any], *batch: Any) -> Any:
        """`function(nets, *batch)` without gradients."""
        return function(self.nets, *batch)

    def acting_nets(self) -> SimpleNamespace:
        """The networks as they are called for the few rows of a step: in NumPy where that can be, else as they are."""
        return SimpleNamespace(**{name: numpy_forward(module) or module for name, module in self.modules.items()})

    # ---------------------------------------------------------------------------------------------------- randomness

    def stream(self, purpose: str) -> Stream:
        """The stream of this seed for a purpose; its position is saved with the state."""
        if purpose not in self._streams:
            self._streams[purpose] = Stream(self._seed, purpose)
        return self._streams[purpose]

    def permutation(self, purpose: str, n: int) -> Tensor:
        """[n] int64, a random order."""
        return torch.from_numpy(self.stream(purpose).permutation(n)).to(self.device)

    def draw(self, purpose: str, noise: Noise, *shape: int) -> Tensor:
        """[*shape, noise.size] of the kind that a policy's `sample` consumes."""
        return torch.from_numpy(self.stream(purpose).noise(noise, *shape)).to(self.device)

    def take(self, data: Batch, index: Tensor) -> Batch:
        """The rows [n] of a tuple of tensors [N, ...], such as a minibatch."""
        return type(data)(*(column[index] for column in data))

    # ---------------------------------------------------------------------------------------------------- what is kept

    def learning_rate(self) -> float | None:
        """The schedule's present value, of the first network; None where nothing is optimised."""
        for network in self.trained.values():
            return network.schedule(self.progress)
        return None

    def is_finite(self) -> bool:
        """Whether every parameter is a finite number. A sync point on an accelerator."""
        return all(bool(torch.isfinite(flat.values).all()) for flat in self.flats.values())

    def weights(self) -> dict[str, Tensor]:
        """A copy of every network's flat parameters."""
        return {name: flat.values.detach().cpu().clone() for name, flat in self.flats.items()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Raises ValueError, naming the first network that differs, where they are not of these networks."""
        for name in sorted(set(weights) | set(self.flats)):
            if name not in weights or name not in self.flats or weights[name].shape != self.flats[name].values.shape:
                saved = tuple(weights[name].shape) if name in weights else "none"
                here = tuple(self.flats[name].values.shape) if name in self.flats else "none"
                raise ValueError(f"network {name}: saved parameters {saved}, configured {here}")
        for name, values in weights.items():
            self.flats[name].values.copy_(values)

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": self.progress.updates,
            "weights": self.weights(),
            "optimizers": {name: network.optimizer.state_dict()["state"] for name, network in self.trained.items()},
            "streams": {purpose: stream.state_dict() for purpose, stream in self._streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.progress = self.progress._replace(updates=state["updates"])
        self.load_weights(state["weights"])
        for name, network in self.trained.items():
            groups = network.optimizer.state_dict()["param_groups"]
            network.optimizer.load_state_dict({"state": state["optimizers"][name], "param_groups": groups})
        for purpose, stream in state["streams"].items():
            self.stream(purpose).load_state_dict(stream)
