"""The vector that steps its environments one after the other, in this process: what is right, others do faster."""

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium
import numpy as np

from rlexp.envs.contract import BrokenContract, Observations, Overdue, compare_spaces, flag
from rlexp.envs.vector import Arrays, Episode, EpisodeSeed, NotFinite, Step, drained, make_arrays
from rlexp.errors import EnvironmentFailure, NonFiniteError
from rlexp.types import Box, Discrete, EnvSpec


class SyncVector:
    """Environments stepped one after the other; a Vector.

    Args:
        make: makes one environment.
        spec: what was declared of it; its time limit truncates.
        num_envs: B.
        episode_seed: the seed of episode k of environment i.
        first: i of its first environment, where it is a slice of a larger vector.
        arrays: where its numbers shall stand; None: in memory of its own.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        spec: EnvSpec,
        num_envs: int,
        episode_seed: EpisodeSeed,
        first: int = 0,
        arrays: Arrays | None = None,
    ) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.finished: list[Episode] = []
        self.inexact: list[int] = []
        self._first = first
        self._episode_seed = episode_seed
        self._envs: list[gymnasium.Env[Any, Any]] = []
        try:
            for _ in range(num_envs):
                self._envs.append(make())
                compare_spaces(self._envs[-1], spec)
                _quicken(self._envs[-1].action_space)
        except Overdue as late:
            raise late.failure from late
        except BrokenContract as error:
            raise EnvironmentFailure(f"{spec.id}: {error}; mend the declaration or the environment") from error
        except Exception as error:
            raise EnvironmentFailure(f"{spec.id} could not be made: {type(error).__name__}: {error}") from error
        self._observations = Observations(spec.observation, self._envs)
        self.observation, self.time, self._step = arrays or make_arrays(spec, num_envs)
        self._index = [-1] * num_envs
        self._seed = [0] * num_envs
        self._return = [0.0] * num_envs
        self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
        self._not_finite: dict[int, NotFinite] = {}  # each environment's first; not saved: no number depends on it
        self._started = False

    def start(self) -> None:
        """Reset every environment to its first episode; nothing happens the second time.

        Raises EnvironmentFailure with the environment and the episode seed where one raises.
        """
        if self._started:
            return
        self._started = True
        i = 0
        try:
            for i in range(self.num_envs):
                self._begin_episode(i)
        except Overdue as late:
            raise late.failure from late
        except Exception as error:
            raise self._failure(i, error) from error

    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> Step:
        """Step every environment; those that ended begin their next episode.

        actions: [B] integers, or [B, *A] real numbers, which are clipped to the space's bounds.
        active: [B] bool, which environments to step, None for all; the others stay as they are, and so do their rows
            of the answer, whatever their actions.
        Raises EnvironmentFailure with the environment, episode seed and step where one raises or breaks its contract.
        """
        reward, terminated, truncated, successor = self._step
        time, limit, look = self.time, self.spec.time_limit, self._observations.look
        shape = self.spec.observation.shape or None  # an integer is looked at whatever it is
        over: list[int] = []
        i = 0
        try:
            for i, (env, action) in enumerate(zip(self._envs, self._to_env(actions), strict=True)):
                if active is not None and not active[i]:
                    continue
                self._actions[i].append(action)
                observed, gain, ended, cut, _ = env.step(action)
                if type(observed) is not np.ndarray or observed.shape != shape:
                    look(observed)
                if type(ended) is not bool or type(cut) is not bool:
                    ended, cut = flag(ended, "terminated"), flag(cut, "truncated")
                self._return[i] += float(gain)
                time[i] += 1
                cut = (cut or time[i] >= limit) and not ended
                successor[i] = observed
                reward[i] = gain
                terminated[i] = ended
                truncated[i] = cut
                if ended or cut:
                    over.append(i)
                else:
                    self.observation[i] = observed
            self._observations.take(successor, active)
            if over:
                self._note_bad(over)
                for i in over:
                    self._end_episode(i)
        except (EnvironmentFailure, NonFiniteError):
            raise
        except Overdue as late:
            raise late.failure from late
        except Exception as error:
            raise self._failure(i, error) from error
        return self._step

    def not_finite(self) -> list[NotFinite]:
        """What was NaN or infinite in an episode that is open or has ended, of each environment the first.

        Raises EnvironmentFailure where an observation lay far outside the space.
        """
        self._note_bad(range(self.num_envs))
        return list(self._not_finite.values())

    def _note_bad(self, envs: Iterable[int]) -> None:
        bad = self._observations.bad()
        for i in envs:
            if i in bad:
                what, value = self._observations.worst(i)
                if math.isfinite(value):
                    raise self._failure(i, BrokenContract(f"{what}, far outside the space that it declares"))
                self._note(i, what)
            elif not math.isfinite(self._return[i]):
                self._note(i, f"the return is {self._return[i]}")

    def _failure(self, i: int, error: Exception) -> EnvironmentFailure:
        what = str(error) if isinstance(error, BrokenContract) else f"{type(error).__name__}: {error}"
        actions = np.array(self._actions[i], self.spec.action.dtype).tolist()
        return EnvironmentFailure(
            f"{self.spec.id}: {what}; environment {self._first + i}, "
            f"episode seed {self._seed[i]}, step {int(self.time[i])}; the same command repeats it",
            {"environment": self._first + i, "seed": self._seed[i], "actions": actions},
        )

    def _note(self, i: int, what: str) -> None:
        self._not_finite.setdefault(i, NotFinite(self._first + i, self._seed[i], int(self.time[i]), what))

    def drain_finished(self, envs: range | None = None) -> list[Episode]:
        taken, self.finished = drained(self.finished, envs)
        return taken

    def close(self) -> None:
        """Whatever one does then, the others are closed, and what was done with it stands."""
        for env in self._envs:
            with contextlib.suppress(Exception, Overdue):
                env.close()

    def _to_env(self, actions: np.ndarray) -> Any:
        if isinstance(self.spec.action, Discrete):
            return actions.tolist()  # Python integers: Gymnasium checks them fastest
        assert isinstance(self.spec.action, Box)
        clipped = actions.reshape(self.num_envs, *self.spec.action.shape)
        return np.clip(clipped, self.spec.action.low, self.spec.action.high)

    def _begin_episode(self, i: int) -> None:
        self._index[i] += 1
        self._seed[i] = self._episode_seed(self._first + i, self._index[i])
        self._actions[i] = []
        self._return[i] = 0.0
        self.time[i] = 0
        observed = self._envs[i].reset(seed=self._seed[i])[0]
        self._observations.look(observed)
        self.observation[i] = observed
        self._observations.begin(i, self.observation[i])

    def _end_episode(self, i: int) -> None:
        env, total, length = self._first + i, float(self._return[i]), int(self.time[i])
        self.finished.append(Episode(env, self._index[i], self._seed[i], total, length))
        self._begin_episode(i)

    # ---------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        dtype = self.spec.action.dtype
        return {
            "started": self._started,
            "observation": self.observation.copy(),
            "finished": [list(episode) for episode in self.finished],
            "episodes": [
                {"index": index, "actions": np.array(actions, dtype)}
                for index, actions in zip(self._index, self._actions, strict=True)
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play each unfinished episode again from its seed. One that does not come out the same is left for the next
        episode and named in `inexact`."""
        self._started = state["started"]
        self.finished = [Episode(*values) for values in state["finished"]]
        if not self._started:
            return
        i = 0
        try:
            for i, episode in enumerate(state["episodes"]):
                self._index[i] = episode["index"] - 1
                self._begin_episode(i)
                if not self._replay(i, episode["actions"]) or not _same(self.observation[i], state["observation"][i]):
                    self.inexact.append(self._first + i)
                    self._begin_episode(i)
        except Overdue as late:
            raise late.failure from late
        except Exception as error:
            raise self._failure(i, error) from error

    def _replay(self, i: int, actions: np.ndarray) -> bool:
        only = np.arange(self.num_envs) == i
        for action in actions.tolist() if isinstance(self.spec.action, Discrete) else actions:
            observed, gain, ended, cut, _ = self._envs[i].step(action)
            self._observations.look(observed)
            if ended or cut:
                return False
            self._actions[i].append(action)
            self._return[i] += float(gain)
            self.time[i] += 1
            self.observation[i] = observed
            self._observations.take(self.observation, only)
        return True


def _quicken(space: gymnasium.Space[Any]) -> None:
    """Test a Python integer's membership in one comparison; whatever else is asked, Gymnasium's own test answers.

    Its test of an integer costs a quarter of a CartPole step.
    """
    if type(space) is gymnasium.spaces.Discrete:
        ask, low, high = space.contains, int(space.start), int(space.start + space.n)
        space.contains = lambda x: low <= x < high if type(x) is int else ask(x)  # type: ignore[method-assign]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
