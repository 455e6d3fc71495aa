"""Seeds that are trained together and are not in step: each learns as it does alone, all act at once.

Where a batch is a fixed number of steps, seeds reach every update, row and evaluation at the same turn, and one mapped
update serves them all (TrainState with several seeds). Whole episodes have lengths of their own, so each seed has its
own steps, schedules and end, and padding batches to one length would change how their sums round. Here an update of a
seed is the very code that a seed alone runs, on a train state of its own. Acting, where such runs spend their time, is
done for all seeds in one pass: the parameters of all lie in one block of memory.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rlexp.networks.stacked import Stacked
from rlexp.optimization import Optimization, aligned, views
from rlexp.state import TrainState
from rlexp.types import Progress


class SeedsApart:
    """A train state for each seed; a seed that is frozen or has reached the end stands still.

    Args: those of TrainState, with several seeds.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        targets: Mapping[str, str],
        optimizations: Mapping[str, Optimization],
        *,
        seeds: Sequence[int],
        device: torch.device,
        total_env_steps: int,
    ) -> None:
        self.device = device
        self.stacked = True
        self.seeds = list(seeds)
        self.frozen = [False] * len(self.seeds)
        self._modules = dict(networks)
        memory = {name: _block(module, len(self.seeds), device) for name, module in networks.items()}
        self._leaves = {name: views(module, memory[name]) for name, module in networks.items()}
        self.members = tuple(
            TrainState(
                copy.deepcopy(self._modules),
                targets,
                optimizations,
                seed=seed,
                device=device,
                total_env_steps=total_env_steps,
                memory={name: block[index] for name, block in memory.items()},
            )
            for index, seed in enumerate(self.seeds)
        )

    # ---------------------------------------------------------------------------------------------------- how far

    @property
    def progress(self) -> Progress:
        """Of the seed that is least far: of one that still learns, while there is one."""
        going = [member.progress for member, frozen in zip(self.members, self.frozen, strict=True) if not frozen]
        return min(going, key=lambda progress: progress.env_steps)

    def progress_of(self, index: int) -> Progress:
        return self.members[index].progress

    def advance(self, experience: Any) -> None:
        """experience: one with an `env_steps_of`."""
        for member, env_steps in zip(self.members, experience.env_steps_of, strict=True):
            member.progress = member.progress._replace(env_steps=env_steps)

    def shares(self, batch: Sequence[Any]) -> Sequence[Any]:
        """batch: one for each seed, None of a seed that takes no part."""
        return batch

    # ---------------------------------------------------------------------------------------------------- acting

    def acting_nets(self) -> SimpleNamespace:
        """The networks as they are called for the few rows of a step, [S, B, ...]."""
        return SimpleNamespace(
            **{name: _OneAfterTheOther([member.modules[name] for member in self.members]) for name in self._modules}
        )

    @contextmanager
    def recording(self) -> Iterator[SimpleNamespace]:
        """Gives the networks to record (rlexp.programs): one batched product a layer, whose numbers in NumPy are those
        of each seed."""
        yield SimpleNamespace(**{name: Stacked(module, self._leaves[name]) for name, module in self._modules.items()})

    # ---------------------------------------------------------------------------------------------------- what is kept

    def finite(self) -> list[bool]:
        return [member.finite()[0] for member in self.members]

    def freeze(self, index: int) -> None:
        """The seed at this place learns no more."""
        self.frozen[index] = True

    def weights_of(self, index: int) -> dict[str, Tensor]:
        return self.members[index].weights()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Name to [S, P]."""
        for index, member in enumerate(self.members):
            member.load_weights({name: values[index] for name, values in weights.items()})

    def state_dict(self) -> dict[str, Any]:
        return {
            "members": [member.state_dict() for member in self.members],
            "frozen": [index for index, frozen in enumerate(self.frozen) if frozen],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for member, saved in zip(self.members, state["members"], strict=True):
            member.load_state_dict(saved)
        for index in state["frozen"]:
            self.freeze(index)


def _block(module: nn.Module, num_seeds: int, device: torch.device) -> Tensor:
    """[S, P], memory for the parameters of all seeds, each row of which lies as memory of its own does."""
    parameters = list(module.parameters())
    size = sum(p.numel() for p in parameters)
    return aligned(torch.zeros(num_seeds, size, dtype=parameters[0].dtype, device=device))


class _OneAfterTheOther:
    """Modules of the seeds called on their slices, [S, B, ...] to [S, B, ...]: the numbers of each seed alone."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list(modules)

    def __call__(self, *inputs: Tensor) -> Tensor:
        slices = zip(*(x.unbind(0) for x in inputs), strict=True)
        return torch.stack([module(*own) for module, own in zip(self._modules, slices, strict=True)])
