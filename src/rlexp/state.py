"""TrainState: the only owner of parameters, optimizers, targets and the algorithm's random streams.

    metrics = state.minimize(("actor", "critic"), algorithm.loss, batch)     # loss(nets, batch) -> (scalar, metrics)

With several seeds every parameter, batch and metric has one dim more, the first, and `loss` is mapped over it: each
seed equals the same seed alone, and its gradient reaches its own parameters only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from rlexp.networks.layers import Linear, initialise
from rlexp.networks.stacked import Bound, Stacked, one_product
from rlexp.optimization import Flat, Optimization, Trained
from rlexp.programs.programs import Programs
from rlexp.streams import Stream, derive_seed
from rlexp.types import Experience, Metrics, Noise, Progress

Updates = Literal["torch", "programs", "compiled"]
Loss = Callable[..., tuple[Tensor, Metrics]]
Batch = TypeVar("Batch", bound=tuple[Any, ...])


class TrainState:
    """Parameters and what steps them.

    Args:
        networks: name to module, as the algorithm made them; their weights are drawn here.
        targets: name of a copy to the name of its source.
        optimizations: name to Optimization, for each network that is stepped.
        seed: of the streams "initialisation" and all that is drawn here; several are stacked, [S].
        device: where the parameters live.
        memory: name to [*S, P], where they shall lie there; None: in memory of their own.
        updates: who computes them, equal up to rounding: "torch"; "programs", what was recorded of it, in NumPy on one
            thread of the CPU (rlexp.programs); or "compiled", torch.compile, of one seed.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        targets: Mapping[str, str],
        optimizations: Mapping[str, Optimization],
        *,
        seed: int | Sequence[int],
        device: torch.device,
        total_env_steps: int,
        memory: Mapping[str, Tensor] | None = None,
        updates: Updates = "torch",
    ) -> None:
        self.progress = Progress(0, 0, total_env_steps)
        self.device = device
        self.stacked = not isinstance(seed, int)
        self.seeds = [seed] if isinstance(seed, int) else list(seed)
        self.frozen = [False] * len(self.seeds)
        self._alive: Tensor | None = None  # [S], 0 where frozen; None while no seed is
        self._streams: dict[str, list[Stream]] = {}
        self.modules = dict(networks)
        self.flats: dict[str, Flat] = {}
        for index, (name, module) in enumerate(networks.items()):
            rows = [_initial(module, derive_seed(s, "initialisation", index)) for s in self.seeds]
            values = (torch.stack(rows) if self.stacked else rows[0]).to(device)
            self.flats[name] = Flat(module, values, None if memory is None else memory[name])
            if self.stacked:
                for layer in module.modules():
                    if isinstance(layer, Linear):
                        layer.num_seeds = len(self.seeds)
        for target, source in targets.items():
            self.flats[target].values.copy_(self.flats[source].values)
            for leaf in self.flats[target].leaves.values():
                leaf.requires_grad_(False)
        self.trained = {name: Trained(self.flats[name], how) for name, how in optimizations.items()}
        self.nets = SimpleNamespace(**self.modules)
        self._programs = Programs(self.recording, wanted=updates == "programs")
        self._compile = updates == "compiled"
        self._compiled: dict[Any, Callable[..., Any]] = {}  # by the loss

    # ------------------------------------------------------------------------------------- all its seeds are in step

    @property
    def members(self) -> "tuple[TrainState]":
        """What an algorithm updates, one after the other."""
        return (self,)

    def shares(self, batch: Any) -> tuple[Any]:
        """Each member's part of what an experience gave."""
        return (batch,)

    def advance(self, experience: Experience) -> None:
        """Take over how far the seeds are."""
        self.progress = self.progress._replace(env_steps=experience.env_steps)

    def progress_of(self, index: int) -> Progress:
        """How far the seed at this place is."""
        return self.progress

    # ---------------------------------------------------------------------------------------------------- learning

    def minimize(self, names: str | Sequence[str], loss: Loss, *batch: Any, active: Tensor | None = None) -> Metrics:
        """One gradient step of `loss(nets, *batch) -> (scalar, metrics)` on the named networks and on no others.

        active: a mask [*S]; where it is 0 the parameters and the optimizer's moments stay as they were.
        Returns the loss's metrics and `optimizer/grad_norm_<network>`, before clipping, each [*S].
        """
        networks = [(name, self.trained[name]) for name in ([names] if isinstance(names, str) else names)]
        metrics = self._gradient(tuple(name for name, _ in networks), loss, _as_tensors(batch))
        if self._alive is not None:
            active = self._alive if active is None else self._alive * active
        if active is not None:
            before = [[[b.clone() for b in row] for row in network.buffers()] for _, network in networks]
        for name, network in networks:
            metrics[f"optimizer/grad_norm_{name}"] = network.step(self.progress)
        if active is not None:
            for (_, network), held in zip(networks, before, strict=True):
                network.undo(held, active)
        self.progress = self.progress._replace(updates=self.progress.updates + 1)
        return metrics

    def _gradient(self, names: tuple[str, ...], loss: Loss, batch: tuple[Any, ...]) -> Metrics:
        """Put the loss's gradient where the networks' optimizers find it. Returns the loss's metrics."""
        flats = [self.flats[name] for name in names]

        def function(*batch: Any) -> tuple[Sequence[Tensor], Metrics]:
            value, metrics = self._loss(loss, batch)
            leaves = [leaf for flat in flats for leaf in flat.leaves.values()]
            return torch.autograd.grad(value.sum() if self.stacked else value, leaves), metrics

        into = [slot for flat in flats for slot in flat.slots]
        metrics: Metrics
        gradients, metrics = self._programs.run(("gradient", names), loss, function, batch, into)
        if gradients is not None:
            for flat in flats:
                own, gradients = gradients[: len(flat.leaves)], gradients[len(flat.leaves) :]
                flat.collect(own)
        return metrics

    def _loss(self, loss: Loss, batch: tuple[Any, ...]) -> tuple[Tensor, Metrics]:
        """The loss's value, [*S], and metrics."""
        output: tuple[Tensor, Metrics]
        if not self._compile:
            output = self._mapped(loss, *batch)
            return output
        key = getattr(loss, "__func__", loss)
        if key not in self._compiled:
            self._compiled[key] = torch.compile(partial(self._mapped, loss))
        output = self._compiled[key](*batch)
        return output

    @torch.no_grad()
    def replace(self, name: str, rule: Callable[..., tuple[Mapping[str, Tensor], Metrics]], *batch: Any) -> Metrics:
        """Set a network's leaves to `rule(nets, *batch) -> (new leaves by name, metrics)`, without an optimizer."""
        metrics: Metrics
        new, metrics = self._mapped(rule, *batch)
        for leaf, value in new.items():
            self.flats[name].leaves[leaf].copy_(value)
        self.progress = self.progress._replace(updates=self.progress.updates + 1)
        return metrics

    @torch.no_grad()
    def track(self, target: str, source: str, tau: float) -> None:
        """target ← tau source + (1 − tau) target; tau = 1 copies."""
        self.flats[target].values.lerp_(self.flats[source].values, tau)

    @torch.no_grad()
    def evaluate(self, function: Callable[..., Any], *batch: Any) -> Any:
        """`function(nets, *batch)` without gradients."""
        return self._programs.run("value", function, partial(self._mapped, function), _as_tensors(batch))

    def _mapped(self, function: Callable[..., Any], *batch: Any) -> Any:
        """`function(nets, *batch)` of the live modules, or of each seed's parameters and slice of the tensors."""
        if not self.stacked:
            return function(self.nets, *batch)

        def of_one_seed(leaves: Mapping[str, Mapping[str, Tensor]], *slices: Any) -> Any:
            return function(
                SimpleNamespace(**{name: Bound(self.modules[name], leaves[name]) for name in leaves}), *slices
            )

        leaves = {name: flat.leaves for name, flat in self.flats.items()}
        dims = tree_map(lambda x: 0 if isinstance(x, Tensor) and x.dim() else None, batch)
        return vmap(of_one_seed, in_dims=(0, *dims))(leaves, *batch)

    def acting_nets(self) -> SimpleNamespace:
        """The networks as they are called for the few rows of a step; of stacked seeds with [S, B, ...]."""
        if not self.stacked:
            return self.nets
        return SimpleNamespace(**{name: Stacked(self.modules[name], flat.leaves) for name, flat in self.flats.items()})

    @contextmanager
    def recording(self) -> Iterator[SimpleNamespace]:
        """Within, what is done with the networks may be recorded (rlexp.programs); gives those to act with."""
        with one_product(self.modules.values()):
            yield self.acting_nets()

    # ---------------------------------------------------------------------------------------------------- randomness

    def streams(self, purpose: str) -> list[Stream]:
        """The stream of each seed for a purpose; their positions are saved with the state."""
        if purpose not in self._streams:
            self._streams[purpose] = [Stream(seed, purpose) for seed in self.seeds]
        return self._streams[purpose]

    def permutation(self, purpose: str, n: int) -> Tensor:
        """[*S, n] int64, a random order."""
        return self._drawn([stream.permutation(n) for stream in self.streams(purpose)])

    def draw(self, purpose: str, noise: Noise, *shape: int) -> Tensor:
        """[*S, *shape, noise.size] of the kind that a policy's `sample` consumes."""
        return self._drawn([stream.noise(noise, *shape) for stream in self.streams(purpose)])

    def _drawn(self, arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays) if self.stacked else arrays[0]).to(self.device)

    def take(self, data: Batch, index: Tensor) -> Batch:
        """The rows [*S, n] of a NamedTuple of tensors [*S, N, ...], such as a minibatch."""
        if not self.stacked:
            return type(data)(*(column[index] for column in data))
        seed = torch.arange(len(self.seeds), device=self.device).unsqueeze(-1)
        return type(data)(*(column[seed, index] for column in data))

    # ---------------------------------------------------------------------------------------------------- what is kept

    def learning_rate(self) -> float | None:
        """The schedule's present value, of the first network; None where nothing is optimised."""
        for network in self.trained.values():
            return network.schedule(self.progress)
        return None

    def finite(self) -> list[bool]:
        """For each seed, whether every parameter is a finite number. A sync point on an accelerator."""
        finite = [torch.isfinite(flat.values).all(-1).reshape(-1).tolist() for flat in self.flats.values()]
        return [all(of_seed) for of_seed in zip(*finite, strict=True)]

    def freeze(self, index: int) -> None:
        """Step the seed at this place no more; the others go on as if it were not there."""
        self.frozen[index] = True
        self._alive = torch.tensor([0.0 if frozen else 1.0 for frozen in self.frozen], device=self.device)

    def weights(self) -> dict[str, Tensor]:
        """A copy of every network's flat parameters, [*S, P]."""
        return {name: flat.values.detach().cpu().clone() for name, flat in self.flats.items()}

    def weights_of(self, index: int) -> dict[str, Tensor]:
        """A copy of every network's flat parameters of the seed at this place, [P]."""
        weights = self.weights()
        return {name: values[index] for name, values in weights.items()} if self.stacked else weights

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
            "streams": {
                purpose: [stream.state_dict() for stream in streams] for purpose, streams in self._streams.items()
            },
            "frozen": [index for index, frozen in enumerate(self.frozen) if frozen],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.progress = self.progress._replace(updates=state["updates"])
        self.load_weights(state["weights"])
        for name, network in self.trained.items():
            groups = network.optimizer.state_dict()["param_groups"]
            network.optimizer.load_state_dict({"state": state["optimizers"][name], "param_groups": groups})
        for purpose, saved in state["streams"].items():
            for stream, position in zip(self.streams(purpose), saved, strict=True):
                stream.load_state_dict(position)
        for index in state["frozen"]:
            self.freeze(index)


def _as_tensors(batch: Sequence[Any]) -> tuple[Any, ...]:
    """Numbers that may differ at the next call, such as a schedule's, become 0-d tensors: what is recorded once would
    keep a number."""
    return tuple(torch.tensor(x) if isinstance(x, float) else x for x in batch)


def _initial(module: nn.Module, seed: int) -> Tensor:
    """[P], the module's parameters as a seed draws them."""
    initialise(module, torch.Generator().manual_seed(seed))
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])
