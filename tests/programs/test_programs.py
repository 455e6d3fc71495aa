"""What becomes a program, and what is called as it is."""

import collections
import gc
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from rlexp.networks.layers import Linear
from rlexp.programs import record as module
from rlexp.programs.programs import Programs
from rlexp.programs.record import NotRecordable, record
from rlexp.state import TrainState
from tests.learner import how
from tests.programs.same import numbers, program_of

GENERATOR = torch.Generator().manual_seed(0)
KEPT = torch.zeros(3)


class Held:
    """Not a tree that torch knows."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def changes_what_it_did_not_make(x: Tensor) -> Tensor:
    KEPT.add_(x[0])
    return KEPT * 1


REFUSED = {
    "random draw": lambda x: x + torch.rand(x.shape, generator=GENERATOR),
    "normal draw": lambda x: x + torch.randn(3, generator=GENERATOR),
    "draw in place": lambda x: (x * 1).uniform_(generator=GENERATOR),
    "normal in place": lambda x: (x * 1).normal_(generator=GENERATOR),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid(), generator=GENERATOR),
    "multinomial": lambda x: torch.multinomial(x.exp(), 1, generator=GENERATOR),
    "permutation": lambda x: x[torch.randperm(2, generator=GENERATOR)],
    "integers": lambda x: x * torch.randint(3, (3,), generator=GENERATOR),
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.5),
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: x * float(x.sum()),
    "branch": lambda x: x if x.sum() > 0 else -x,
    "branch on any": lambda x: x if (x > 0).any() else -x,
    "equal": lambda x: x * torch.equal(x, x),
    "allclose": lambda x: x * torch.allclose(x, x),
    "list": lambda x: x * x.tolist()[0][0],
    "numpy": lambda x: x * float(np.sum(x.numpy())),
    "as an array": lambda x: x * np.asarray(x)[0, 0].item(),
    "mask as index": lambda x: x[x > 0],
    "masked select": lambda x: x.masked_select(x > 0),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "repeated": lambda x: x[0].repeat_interleave((x[0] > 0).long() + 1),
    "sparse": lambda x: x.to_sparse().to_dense(),
    "half the digits": lambda x: x.bfloat16() * 2,
    "object": lambda x: Held(x * 2),
    "array": lambda x: (x * 2, np.ones(3)),
    "ordered dict": lambda x: collections.OrderedDict(a=x * 2),
    "deque": lambda x: collections.deque([x * 2]),
    "of torch": lambda x: (x * 2).max(-1),
    "changes what it did not make": changes_what_it_did_not_make,
    "changes a constant": lambda x: torch.tensor([1.0, 2.0, 3.0]).add_(x[0]),
    "several at once": lambda x: (torch._foreach_add_([y := x * 1], 1.0), y)[1],
    "given memory": lambda x: torch.add(x, 1, out=torch.empty(2, 3)),
    "its own error": lambda x: [1, 2, 3][x.sum()],
}


@pytest.mark.parametrize("function", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_fixed_line_of_operations_is_refused(function) -> None:
    with pytest.raises(NotRecordable):
        program_of(function, [numbers(2, 3)])


def test_what_is_refused_changed_nothing() -> None:
    before = KEPT.clone()
    with pytest.raises(NotRecordable):
        record(changes_what_it_did_not_make, [numbers(2, 3)])
    assert torch.equal(KEPT, before)


@pytest.mark.parametrize("by", ["item", "branch"])
def test_refused_when_mapped_or_differentiated(by: str) -> None:
    def function(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(REFUSED[by](leaf).sum(), leaf)[0]

    with pytest.raises(NotRecordable):
        record(function, [numbers(2, 3)])
    with pytest.raises(NotRecordable):
        record(vmap(REFUSED["draw in place"], randomness="different"), [numbers(4, 2, 3)])


def test_too_many_operations_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)

    def function(x: Tensor, count: int) -> Tensor:
        for _ in range(count):
            x = x + 1
        return x

    record(lambda x: function(x, 10), [numbers(2)])
    with pytest.raises(NotRecordable, match="10"):
        record(lambda x: function(x, 11), [numbers(2)])


# --------------------------------------------------------------------------------------------------- which program


class Batch(NamedTuple):
    x: Tensor
    y: Tensor | None


CALLS: list[str] = []
"""Names of the functions below that really ran."""


def doubled(x: Tensor, *others: object) -> Tensor:
    CALLS.append("doubled")
    return 2 * x + (others[0] if others and isinstance(others[0], int) else 0)


def of_batch(batch: Batch) -> Tensor:
    CALLS.append("of_batch")
    return batch.x if batch.y is None else batch.x + batch.y


def branching(x: Tensor) -> Tensor:
    CALLS.append("branching")
    return x if x.sum() > 0 else -x


@dataclass(frozen=True)
class Owner:
    scale: int

    def scaled(self, x: Tensor) -> Tensor:
        CALLS.append("scaled")
        return self.scale * x


@dataclass
class Changing:
    scale: int

    def scaled(self, x: Tensor) -> Tensor:
        CALLS.append("scaled")
        return self.scale * x


@pytest.fixture
def programs() -> Programs:
    CALLS.clear()
    return Programs(nullcontext, wanted=True)


def run(programs: Programs, function, *batch, purpose: str = "value"):
    return programs.run(purpose, function, function, batch)


def test_a_function_runs_once_for_each_shape_type_and_argument(programs) -> None:
    for _ in range(3):
        for x in (numbers(2), numbers(3), numbers(3, 1), numbers(2).double(), torch.tensor([3, 4])):
            assert torch.equal(run(programs, doubled, x), 2 * x)
    assert len(CALLS) == 5
    for more in (True, "a", None, True):
        expected = 2 * numbers(2) + (more if isinstance(more, bool) else 0)
        assert torch.equal(run(programs, doubled, numbers(2), more), expected)
    assert len(CALLS) == 5 + 3
    run(programs, doubled, numbers(2), purpose="another")
    assert len(CALLS) == 5 + 3 + 1


def test_counts_make_no_programs(programs) -> None:
    """A Progress, say: it would be another one at each call, for ever."""
    for count in range(3):
        assert torch.equal(run(programs, doubled, numbers(2), count), 2 * numbers(2) + count)
        assert torch.equal(run(programs, of_batch, Batch(numbers(3), count)), numbers(3) + count)
    assert programs._made == {}


def test_numbers_of_another_type_are_another_argument(programs) -> None:
    assert run(programs, typed, numbers(1), 1) == 1
    assert run(programs, typed, numbers(1), True) == 2


def typed(x: Tensor, number: object) -> int:
    return 2 if isinstance(number, bool) else 1


def test_tuples_are_looked_into(programs) -> None:
    x, y = numbers(3), numbers(3, seed=1)
    for _ in range(2):
        assert torch.equal(run(programs, of_batch, Batch(x, None)), x)
        assert torch.equal(run(programs, of_batch, Batch(x, y)), x + y)
        assert torch.equal(run(programs, of_batch, Batch(y, x)), x + y)
    assert len(CALLS) == 2


def test_arguments_that_cannot_be_told_apart_are_called_plainly(programs) -> None:
    for _ in range(2):
        assert torch.equal(run(programs, of_dict, {"x": numbers(2)}), numbers(2))
    assert CALLS == ["of_dict"] * 2


def of_dict(batch: dict[str, Tensor]) -> Tensor:
    CALLS.append("of_dict")
    return batch["x"]


def test_inputs_in_any_layout(programs) -> None:
    x = numbers(4, 6)
    for given in (x.mT, numbers(6, 4), x[:1].expand(6, 6)[:, :4], x.clone().requires_grad_().mT):
        assert torch.equal(run(programs, doubled, given), 2 * given)
    assert len(CALLS) == 1


def test_methods_of_frozen_dataclasses_are_told_apart_by_their_owner(programs) -> None:
    owners = [Owner(2), Owner(3), Owner(2)]
    for _ in range(2):
        for owner in owners:
            assert torch.equal(run(programs, owner.scaled, numbers(2)), owner.scale * numbers(2))
    assert len(CALLS) == 3


def test_owners_are_kept_alive(programs) -> None:
    """Nobody else gets their id."""
    gone = weakref.ref(owner := Owner(2))
    run(programs, owner.scaled, numbers(2))
    del owner
    gc.collect()
    assert gone() is not None
    for scale in range(3, 50):
        assert torch.equal(run(programs, Owner(scale).scaled, numbers(2)), scale * numbers(2))


def test_what_may_change_is_called_plainly(programs) -> None:
    factor = 2
    changing = Changing(2)
    plain = SimpleNamespace(scaled=lambda x: changing.scale * x)

    def local(x: Tensor) -> Tensor:
        return factor * x

    for function in (lambda x: changing.scale * x, local, changing.scaled, plain.scaled):
        factor = changing.scale = 2
        assert torch.equal(run(programs, function, numbers(2)), 2 * numbers(2))
        factor = changing.scale = 3
        assert torch.equal(run(programs, function, numbers(2)), 3 * numbers(2))


def test_what_is_refused_is_called_plainly(programs) -> None:
    for x in (numbers(2).abs(), -numbers(2).abs(), numbers(2).abs()):
        assert torch.equal(run(programs, branching, x), x.abs())
    assert len(CALLS) == 1 + 3  # it is tried once


def test_unwanted_ones_are_not_made() -> None:
    programs = Programs(nullcontext, wanted=False)
    CALLS.clear()
    for _ in range(3):
        run(programs, doubled, numbers(2))
    assert CALLS == ["doubled"] * 3


def test_into_memory(programs) -> None:
    into = [np.zeros(3, np.float32), np.zeros((), np.float32)]
    for seed in range(2):
        x = numbers(3, seed=seed)
        first, second = programs.run("gradient", both, both, (x,), into)
        assert first is None
        assert into[0].tolist() == (2 * x).tolist()
        assert into[1] == pytest.approx(x.sum().item(), rel=1e-6)
        assert torch.equal(second["max"], x.amax())


def both(x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    return [2 * x, x.sum()], {"max": x.amax()}


# --------------------------------------------------------------------------------------------------- a train state


def scaled_loss(nets, x: Tensor, scale: float):
    CALLS.append("loss")
    return scale * nets.net(x).square().mean(), {"scale": torch.as_tensor(scale) * 1}


@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["alone", "stacked"])
def test_numbers_of_a_schedule_are_not_kept(seed) -> None:
    state = TrainState(
        {"net": Linear(3, 2)}, {}, {"net": how()}, seed=seed, device=torch.device("cpu"), total_env_steps=9,
        updates="programs",
    )  # fmt: skip
    CALLS.clear()
    x = numbers(*state.flats["net"].values.shape[:-1], 5, 3)
    for scale in (1.0, 2.0, 0.5):
        metrics = state.minimize("net", scaled_loss, x, scale)
        assert metrics["scale"].flatten().unique().tolist() == [scale]
    assert CALLS == ["loss"]


# --------------------------------------------------------------------------------------------------- a new process

FRESH = """
import sys, torch
from torch.func import vmap
from rlexp.programs.program import Program
from rlexp.programs.record import record

def gradient(x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(vmap(lambda x: (x @ x.T).tanh().log_softmax(-1).mean())(x).sum(), x)

Program(record(gradient, [torch.ones(2, 3, 3)]))(torch.ones(2, 3, 3).numpy())
found = [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules]
assert not found, found
"""


def test_nothing_imports_the_compiler() -> None:
    """That takes a second."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
