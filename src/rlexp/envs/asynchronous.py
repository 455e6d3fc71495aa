"""Environments stepped in worker processes; the same numbers as SyncVector's, bit for bit.

Worth its messages, some 0.1 ms a step, where the environments take longer. Whatever happens to a worker, the parent
hears of it: an exception as its line, a death by its signal, silence by a deadline.
"""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from rlexp.envs import worker
from rlexp.envs.processes import one_thread_each
from rlexp.envs.vector import Episode, EpisodeSeed, NotFinite, Step, drained
from rlexp.errors import EnvironmentFailure, NonFiniteError
from rlexp.types import EnvSpec

GRACE = 1.0  # seconds for workers to close their environments; a second Ctrl-C waits for it
ERRORS = {error.code: error for error in (EnvironmentFailure, NonFiniteError)}


class Worker(NamedTuple):
    """A process and the environments that it steps: `first` to `stop` - 1."""

    process: BaseProcess
    connection: Connection
    first: int
    stop: int


class AsyncVector:
    """A Vector of environments in processes of their own, made by a fork server: no thread or lock is inherited.

    Args:
        make: makes one environment; it must pickle.
        spec: what was declared of it; its time limit truncates.
        num_envs: B.
        episode_seed: the seed of episode k of environment i; called in this process.
        workers: processes, at most B; each steps a slice of the environments.
        deadline: seconds for a worker to make or reset its environments, or to step at least one of them; None: no end.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        spec: EnvSpec,
        num_envs: int,
        episode_seed: EpisodeSeed,
        workers: int,
        deadline: float | None,
    ) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.finished: list[Episode] = []
        self.inexact: list[int] = []
        self._episode_seed = episode_seed
        self._deadline = deadline
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([worker.__name__])
        with one_thread_each():  # it forks, and a process of several threads should not; workers are many already
            forkserver.ensure_running()
        buffer = context.RawArray("b", worker.Memory.size(spec, num_envs))  # its file has no name: nothing is left over
        self._memory = worker.Memory.over(buffer, spec, num_envs)
        self.observation, self.time, self._step = self._memory.arrays
        self._time_before = self.time.copy()  # the last command
        self._index = [-1] * num_envs
        self._started = False
        self._workers: list[Worker] = []
        atexit.register(self.close)  # before multiprocessing's own, which would wait for the workers for ever
        bounds = np.linspace(0, num_envs, min(workers, num_envs) + 1).astype(int).tolist()
        try:
            for first, stop in itertools.pairwise(bounds):
                ours, theirs = context.Pipe()
                arguments = (theirs, buffer, make, spec, num_envs, first, stop)
                process = context.Process(target=worker.serve, args=arguments, daemon=True)
                self._workers.append(Worker(process, ours, first, stop))
                process.start()
                theirs.close()
            self._hear_all("make its environments")
        except BaseException as error:
            self.close()
            if isinstance(error, (EnvironmentFailure, NonFiniteError)) or not isinstance(error, Exception):
                raise
            raise EnvironmentFailure(f"{spec.id} could not be made: {type(error).__name__}: {error}") from error

    def start(self) -> None:
        """Reset every environment to its first episode; nothing happens the second time."""
        if not self._started:
            self._started = True
            for i in range(self.num_envs):
                self._begun(i, 0)
                self._memory.seed[i, 0] = self._episode_seed(i, 0)
            self._tell_all(worker.START)
            self._hear_all("reset its environments")

    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> Step:
        """Step every environment; those that ended begin their next episode.

        actions: [B] integers, or [B, *A] real numbers, which are clipped to the space's bounds.
        active: [B] bool, which environments to step, None for all; the others stay as they are, and so do their rows
            of the answer, whatever their actions.
        Raises EnvironmentFailure with the environment, episode seed and step where one raises, and with the worker,
        its environments and their episode seeds where it died or passed the deadline.
        """
        if actions.size != self._memory.action.size:
            raise EnvironmentFailure(f"{self.spec.id}: takes {self.num_envs} actions, not {actions.shape}")
        self._memory.action[...] = actions.reshape(self._memory.action.shape)
        command = worker.STEP
        numbers: Sequence[int] = range(len(self._workers))
        if active is not None:
            self._memory.active[...] = active
            command = worker.STEP_SOME
            numbers = [n for n in numbers if active[self._workers[n].first : self._workers[n].stop].any()]
        self._tell(numbers, command)
        for finished in self._hear(numbers, "step its environments"):
            for episode in finished or ():
                self.finished.append(episode)
                self._begun(episode.env, episode.index + 1)
        return self._step

    def not_finite(self) -> list[NotFinite]:
        """What was NaN or infinite when it was looked for or when its episode ended, of each environment the first."""
        self._tell_all(worker.CHECK)
        return [found for part in self._hear_all("look at its numbers") for found in part or ()]

    def drain_finished(self, envs: range | None = None) -> list[Episode]:
        taken, self.finished = drained(self.finished, envs)
        return taken

    def close(self) -> None:
        """End the workers: those that do not within GRACE seconds are killed. May be called twice."""
        atexit.unregister(self.close)
        for each in self._workers:
            each.connection.close()
        until = time.monotonic() + GRACE
        for each in self._workers:
            if each.process.pid is not None:
                each.process.join(max(0.0, until - time.monotonic()))
                each.process.kill()
                each.process.join(GRACE)
        self._workers = []

    def _begun(self, i: int, k: int) -> None:
        """Environment i is in its episode k: keep the next one's seed ready, for an episode ends without asking."""
        self._index[i] = k
        self._memory.seed[i, (k + 1) % 2] = self._episode_seed(i, k + 1)

    # ---------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        self._tell_all(worker.SAVE)
        return {
            "started": self._started,
            "observation": self.observation.copy(),
            "finished": [list(episode) for episode in self.finished],
            "episodes": [episode for part in self._hear_all("save its environments") for episode in part],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play each unfinished episode again from its seed. One that does not come out the same is left for the next
        episode and named in `inexact`."""
        self._started = state["started"]
        self.finished = [Episode(*values) for values in state["finished"]]
        if not self._started:
            return
        for i, episode in enumerate(state["episodes"]):
            self._begun(i, episode["index"])
            self._memory.seed[i, episode["index"] % 2] = self._episode_seed(i, episode["index"])
        self._tell_all(worker.LOAD)
        for each in self._workers:
            rows = slice(each.first, each.stop)
            open_ones = {key: state[key][rows] for key in ("observation", "episodes")}
            with contextlib.suppress(OSError):  # a worker that died is heard of below
                each.connection.send({"started": True, "finished": [], **open_ones})
        for begun_anew in self._hear_all("play its episodes again"):
            for i in begun_anew or ():
                self.inexact.append(i)
                self._begun(i, self._index[i] + 1)

    # ---------------------------------------------------------------------------------------------------- workers

    def _tell_all(self, command: bytes) -> None:
        self._tell(range(len(self._workers)), command)

    def _tell(self, numbers: Sequence[int], command: bytes) -> None:
        self._time_before = self.time.copy()
        for number in numbers:
            with contextlib.suppress(OSError):
                self._workers[number].connection.send_bytes(command)

    def _hear_all(self, what: str) -> list[Any]:
        return self._hear(range(len(self._workers)), what)

    def _hear(self, numbers: Sequence[int], what: str) -> list[Any]:
        """The workers' answers to the last command, in their order; the first failure among them is raised."""
        return [self._hear_one(number, what) for number in numbers]

    def _hear_one(self, number: int, what: str) -> Any:
        connection = self._workers[number].connection
        try:
            while not connection.poll(self._deadline):
                self._expect_progress(number, what)
            said = connection.recv_bytes()
            value: Any = None if said == worker.DONE else connection.recv()
        except (EOFError, OSError):
            raise self._death(number) from None
        if said == worker.FAILED:
            code, line, episode = value
            if code == NonFiniteError.code:
                raise NonFiniteError(line)
            raise EnvironmentFailure(line, episode)
        return value

    def _expect_progress(self, number: int, what: str) -> None:
        """Raises EnvironmentFailure where no environment of a worker has moved since this was last asked."""
        each = self._workers[number]
        rows = slice(each.first, each.stop)
        if np.array_equal(self.time[rows], self._time_before[rows]):
            raise EnvironmentFailure(
                f"{self._name(number)} did not {what} within {self._deadline:g} s; {self._whereabouts(number)}; "
                "check the environment, or raise execution.step_deadline where it is only slow"
            )
        self._time_before[rows] = self.time[rows]

    def _death(self, number: int) -> EnvironmentFailure:
        process = self._workers[number].process
        process.join(GRACE)
        code = process.exitcode
        how = "without a word" if code is None else f"with status {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return EnvironmentFailure(
            f"{self._name(number)} died {how}; {self._whereabouts(number)}; the same command goes on from the last "
            "checkpoint"
        )

    def _name(self, number: int) -> str:
        return f"{self.spec.id}: worker {number} (process {self._workers[number].process.pid})"

    def _whereabouts(self, number: int) -> str:
        """The environments of a worker, and the seeds of their episodes before the last command."""
        environments = list(range(self._workers[number].first, self._workers[number].stop))
        seeds = [self._episode_seed(i, self._index[i]) for i in environments if self._index[i] >= 0]
        return f"environments {environments}, episode seeds {seeds}"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
