"""The ring of transitions: what it holds, in which order it forgets, how it draws, how it resumes."""

import numpy as np
import pytest
import torch

from rlexp.data.uniform import COLUMNS, UniformBuffer
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.streams import Stream
from rlexp.types import Box, Discrete, EnvSpec, Transition

CPU = torch.device("cpu")
SPECS = {
    "vector, integers": EnvSpec("a", Box((3,)), Discrete(4), 100, False),
    "integer, vectors": EnvSpec("b", Discrete(10**6), Box((2,), -1.0, 1.0), 100, False),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def segment(spec: EnvSpec, first: int, length: int, num_envs: int) -> dict[str, np.ndarray]:
    """[T, B, ...] of transitions numbered from `first` in the order of time; the number stands in every column."""
    number = np.arange(first, first + length * num_envs).reshape(length, num_envs)

    def spread(space, shift: int) -> np.ndarray:
        column = (number + shift).reshape(length, num_envs, *(1 for _ in space.shape))
        return np.broadcast_to(column, (length, num_envs, *space.shape)).astype(space.dtype)

    return {
        "observation": spread(spec.observation, 0),
        "action": spread(spec.action, 1),
        "reward": (number + 2).astype(np.float32),
        "terminated": (number % 3 == 0).astype(np.float32),
        "truncated": (number % 5 == 0).astype(np.float32),
        "next_observation": spread(spec.observation, 3),
        "time": number + 4,
    }


def numbers(batch: Transition) -> list[int]:
    """The numbers of a batch's transitions, after a look at whether each is of one piece."""
    batch = Transition(*(None if x is None else x[0] for x in batch))  # of the only seed
    number = (batch.reward - 2).long()
    wide = [x.reshape(*number.shape, -1) for x in (batch.observation, batch.action, batch.next_observation)]
    for x, shift in zip((*wide, batch.time.unsqueeze(-1)), (0, 1, 3, 4), strict=True):
        assert (x.long() == number.unsqueeze(-1) + shift).all()
    assert ((number % 3 == 0) == (batch.terminated == 1)).all()
    assert ((number % 5 == 0) == (batch.truncated == 1)).all()
    return number[0].tolist()


def held(buffer: UniformBuffer) -> list[int]:
    return sorted(set(numbers(buffer.sample(60 * buffer.capacity, 1, [Stream(9, "look")], CPU))))


@every_spec
def test_shapes_and_types(spec: EnvSpec) -> None:
    buffer = UniformBuffer(spec, 20, 1)
    buffer.add(segment(spec, 0, 3, 2))
    batch = buffer.sample(5, 1, [Stream(0, "replay")], CPU)
    assert batch.observation.shape == (1, 1, 5, *spec.observation.shape)
    assert batch.next_observation.shape == (1, 1, 5, *spec.observation.shape)
    assert batch.action.shape == (1, 1, 5, *spec.action.shape)
    assert batch.action.dtype == (torch.int64 if spec.action.kind == "discrete" else torch.float32)
    for name in ("reward", "terminated", "truncated", "time"):
        assert getattr(batch, name).shape == (1, 1, 5)
    assert batch.log_prob is batch.valid is None
    assert set(COLUMNS) == set(Transition._fields) - {"log_prob", "valid"}


@every_spec
def test_holds_what_came_and_draws_only_that(spec: EnvSpec) -> None:
    buffer = UniformBuffer(spec, 20, 1)
    buffer.add(segment(spec, 0, 3, 2))
    assert buffer.size == 6
    assert held(buffer) == list(range(6))


@every_spec
@pytest.mark.parametrize(("length", "num_envs"), [(3, 2), (1, 1), (5, 2), (1, 7)])
def test_the_oldest_go_first(spec: EnvSpec, length: int, num_envs: int) -> None:
    buffer, count = UniformBuffer(spec, 10, 1), length * num_envs
    for turn in range(12):
        buffer.add(segment(spec, turn * count, length, num_envs))
        came = (turn + 1) * count
        assert buffer.size == min(came, 10)
        assert held(buffer) == list(range(max(0, came - 10), came))


def test_a_segment_larger_than_the_ring_is_refused() -> None:
    spec = SPECS["vector, integers"]
    buffer = UniformBuffer(spec, 10, 1)
    with pytest.raises(ValueError, match="11 transitions do not fit a buffer of 10"):
        buffer.add(segment(spec, 0, 11, 1))


def test_what_was_added_is_a_copy() -> None:
    spec = SPECS["vector, integers"]
    buffer, given = UniformBuffer(spec, 10, 1), segment(spec, 0, 2, 2)
    buffer.add(given)
    for column in given.values():
        column += 50  # the collector uses its arrays again
    assert held(buffer) == [0, 1, 2, 3]


def test_every_transition_is_drawn_as_often() -> None:
    spec, count = SPECS["vector, integers"], 100_000
    buffer = UniformBuffer(spec, 10, 1)
    for turn in range(3):
        buffer.add(segment(spec, turn * 7, 7, 1))
    frequency = np.bincount(numbers(buffer.sample(count, 1, [Stream(0, "replay")], CPU)))[11:]
    assert len(frequency) == 10
    assert np.abs(frequency - count / 10).max() < 4.5 * (count * 0.1 * 0.9) ** 0.5


def test_draws_belong_to_the_stream() -> None:
    spec = SPECS["vector, integers"]
    buffer = UniformBuffer(spec, 10, 1)
    buffer.add(segment(spec, 0, 9, 1))
    stream = Stream(0, "replay")
    first, second = numbers(buffer.sample(20, 1, [stream], CPU)), numbers(buffer.sample(20, 1, [stream], CPU))
    assert first != second
    stream.counter = 0
    assert numbers(buffer.sample(20, 1, [stream], CPU)) == first


@pytest.mark.parametrize("changed", [{"size": 11}, {"size": 10**15}, {"size": -1}, {"next": 10}, {"next": -1}])
def test_more_than_it_holds_is_refused_before_it_takes_memory(changed: dict) -> None:
    buffer = UniformBuffer(EnvSpec("a", Box((3,)), Discrete(4), 100, False), 10, 1)
    with pytest.raises(ValueError, match="do not fit a buffer of 10"):
        buffer.load_state_dict({**buffer.state_dict(), **changed})
    assert buffer.size == 0


@every_spec
@pytest.mark.parametrize("came", [0, 6, 10, 16])
def test_resumes(spec: EnvSpec, came: int, tmp_path) -> None:
    """Partly filled, just full, and wrapped around."""
    buffer, resumed = UniformBuffer(spec, 10, 1), UniformBuffer(spec, 10, 1)
    for turn in range(came // 2):
        buffer.add(segment(spec, turn * 2, 2, 1))
    save_tree(tmp_path / "a", buffer.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    assert resumed.size == buffer.size
    one, other = Stream(0, "replay"), Stream(0, "replay")
    for turn in range(8):
        for each in (buffer, resumed):
            each.add(segment(spec, came + turn * 3, 3, 1))
        assert numbers(buffer.sample(30, 1, [one], CPU)) == numbers(resumed.sample(30, 1, [other], CPU))
    assert held(resumed) == list(range(came + 14, came + 24))


@every_spec
@pytest.mark.parametrize(
    ("length", "num_envs", "capacity"), [(1, 1, 10), (3, 1, 10), (3, 2, 20), (4, 3, 13), (2, 5, 11)]
)
def test_sequences_are_successive_steps_of_one_environment(spec, length: int, num_envs: int, capacity: int) -> None:
    """Partly filled and many times wrapped, also where the environments do not divide the capacity."""
    buffer, first = UniformBuffer(spec, capacity, num_envs), 0
    for turn in range(9):
        steps = 1 + (turn % 2) if turn else length
        buffer.add(segment(spec, first, steps, num_envs))
        first += steps * num_envs
        batch = buffer.sample(40 * capacity, length, [Stream(turn, "replay")], CPU)
        assert batch.reward.shape == (1, length, 40 * capacity)
        numbers(batch)  # of one piece
        number = (batch.reward[0] - 2).long()
        assert (number.diff(dim=0) == num_envs).all()
        oldest = max(0, first - capacity)
        assert set(number[0].tolist()) == set(range(oldest, first - (length - 1) * num_envs))
        assert int(number.max()) == first - 1


@pytest.mark.parametrize("num_envs", [1, 2])
def test_stacked_seeds_have_rings_of_their_own(num_envs: int, tmp_path) -> None:
    """Each holds, draws and resumes what a buffer of that seed alone would."""
    spec = SPECS["vector, integers"]
    singles = [UniformBuffer(spec, 10, num_envs) for _ in range(3)]
    together, resumed = (UniformBuffer(spec, 10, num_envs, 3) for _ in range(2))
    for turn in range(7):
        parts = [segment(spec, 100 * s + 2 * num_envs * turn, 2, num_envs) for s in range(3)]
        for single, part in zip(singles, parts, strict=True):
            single.add(part)
        together.add({name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]})
        if turn == 4:
            save_tree(tmp_path / "a", together.state_dict())
            resumed.load_state_dict(load_tree(tmp_path / "a"))
        streams = [Stream(s, "replay", turn) for s in range(3)]
        batch = together.sample(6, 2, streams, CPU)
        for s, single in enumerate(singles):
            alone = single.sample(6, 2, [Stream(s, "replay", turn)], CPU)
            for x, y in zip(batch, alone, strict=True):
                assert x is y is None or torch.equal(x[s], y[0])
        if turn == 4:
            again = resumed.sample(6, 2, [Stream(s, "replay", turn) for s in range(3)], CPU)
            assert torch.equal(batch.reward, again.reward)
