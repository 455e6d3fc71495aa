"""A process that steps a slice of an AsyncVector's environments; imports no torch: it starts fast and is small.

The parent writes actions and episode seeds into memory that both see and sends the name of a command; the worker
writes its rows there and answers DONE, or MORE followed by a value, or FAILED followed by what an error holds.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from rlexp.envs.processes import end_with_the_writer_of
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import Arrays, Step
from rlexp.errors import EnvironmentFailure, RlexpError
from rlexp.types import EnvSpec

START, STEP, STEP_SOME, CHECK, SAVE, LOAD = b"start", b"step", b"step some", b"check", b"save", b"load"
DONE, MORE, FAILED = b"done", b"more", b"failed"

_ALIGNMENT = 64  # bytes; a row of one worker and one of the next may still share a cache line, which costs little


class Memory(NamedTuple):
    """What parent and workers share; row i belongs to environment i of the whole vector."""

    arrays: Arrays
    action: np.ndarray  # [B, *A], of the step to come
    active: np.ndarray  # [B] bool, which environments STEP_SOME steps
    seed: np.ndarray  # [B, 2] int64: that of episode k stands at k % 2; the parent keeps the next one ready

    @staticmethod
    def size(spec: EnvSpec, num_envs: int) -> int:
        """In bytes."""
        *_, (offset, shape, dtype) = _fields(spec, num_envs)
        return offset + int(np.prod(shape)) * np.dtype(dtype).itemsize

    @staticmethod
    def over(buffer: Any, spec: EnvSpec, num_envs: int) -> "Memory":
        """Views of a buffer of that size."""
        views: list[np.ndarray] = [
            np.frombuffer(buffer, dtype, int(np.prod(shape)), offset).reshape(shape)
            for offset, shape, dtype in _fields(spec, num_envs)
        ]
        observation, time, reward, terminated, truncated, successor, action, active, seed = views
        return Memory(Arrays(observation, time, Step(reward, terminated, truncated, successor)), action, active, seed)


def _fields(spec: EnvSpec, num_envs: int) -> Iterator[tuple[int, tuple[int, ...], type]]:
    """Offset in bytes, shape and type of each array, in the order of `Memory.over`."""
    observation = ((num_envs, *spec.observation.shape), spec.observation.dtype)
    flags = [((num_envs,), np.float32)] * 3
    action = ((num_envs, *spec.action.shape), spec.action.dtype)
    active, seed = ((num_envs,), np.bool_), ((num_envs, 2), np.int64)
    offset = 0
    for shape, dtype in (observation, ((num_envs,), np.int64), *flags, observation, action, active, seed):
        yield offset, shape, dtype
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT


def serve(
    connection: Connection,
    buffer: Any,
    make: Callable[[], gymnasium.Env[Any, Any]],
    spec: EnvSpec,
    num_envs: int,
    first: int,
    stop: int,
) -> None:
    """The life of a worker: make environments `first` to `stop` - 1 of `num_envs`, then obey until the parent ends."""
    live_as_long_as_the_parent()
    memory = Memory.over(buffer, spec, num_envs)
    (observation, time, step), rows = memory.arrays, slice(first, stop)
    arrays = Arrays(observation[rows], time[rows], Step(*(column[rows] for column in step)))

    def seed_of(i: int, k: int) -> int:
        return int(memory.seed[i, k % 2])

    with contextlib.suppress(OSError), _told(connection):  # OSError: nobody listens any more
        vector = SyncVector(make, spec, stop - first, seed_of, first, arrays)
        try:
            connection.send_bytes(DONE)
            while True:
                _obey(connection.recv_bytes(), connection, vector, memory.action[rows], memory.active[rows])
        except EOFError:
            pass
        finally:
            with contextlib.suppress(Exception):
                vector.close()


def _obey(command: bytes, connection: Connection, vector: SyncVector, action: np.ndarray, active: np.ndarray) -> None:
    answer: Any = None
    if command in (STEP, STEP_SOME):
        vector.step(action, active if command == STEP_SOME else None)
        answer = vector.drain_finished()
    elif command == START:
        vector.start()
    elif command == CHECK:
        answer = vector.not_finite()
    elif command == SAVE:
        answer = vector.state_dict()["episodes"]
    elif command == LOAD:
        known = len(vector.inexact)
        vector.load_state_dict(connection.recv())
        answer = vector.inexact[known:]
    connection.send_bytes(MORE if answer else DONE)
    if answer:
        connection.send(answer)


@contextlib.contextmanager
def _told(connection: Connection) -> Iterator[None]:
    """Send what goes wrong inside the block as text: an exception itself may not survive the way."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        known = error if isinstance(error, RlexpError) else EnvironmentFailure(f"{type(error).__name__}: {error}")
        connection.send_bytes(FAILED)
        connection.send((known.code, str(known), getattr(known, "episode", None)))


def live_as_long_as_the_parent() -> None:
    """End with the parent, also inside C code; signals of a terminal or a scheduler are the parent's."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    end_with_the_writer_of(parent.sentinel)
