"""CartPole-v1 as array arithmetic: all environments in one step, each with its own random stream.

The numbers are Gymnasium's bit for bit: each operation below is one of its own, in its order, on float64. Only
environments that end are touched one by one. Barto, Sutton and Anderson 1983; the equations are those of Florian 2005,
"Correct equations for the dynamics of the cart-pole system", eq. 23 and 24 without friction.
"""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from rlexp.envs.vector import Episode, EpisodeSeed, NotFinite, Step, drained, make_arrays
from rlexp.errors import EnvironmentFailure
from rlexp.types import EnvSpec

ENTRY_POINT = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
GRAVITY = 9.8  # m/s^2
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5  # m
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCES = np.array([-10.0, 10.0])  # N, by action
SECONDS = 0.02  # of a step
X_LIMIT = 2.4  # m
THETA_LIMIT = 12 * 2 * math.pi / 360  # rad
START = 0.05  # a reset draws each number from [-START, START)


def is_cartpole(env_id: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether the environment is Gymnasium's own CartPole-v1 as it stands, which this module repeats."""
    spec = gymnasium.registry.get(env_id)
    if env_id != "CartPole-v1" or spec is None:
        return False
    return not kwargs and not spec.kwargs and not spec.additional_wrappers and spec.entry_point == ENTRY_POINT


class CartPoleVector:
    """A Vector of CartPole-v1.

    Its saved state is SyncVector's, seeds and actions: one form for all vectors, and playing 500 steps again takes
    milliseconds here. The actions since any reset are the last `time` rows of a ring of `time_limit` rows, so keeping
    them costs one row copied a step. NumPy's functions give an element the same result wherever it stands in an array.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, episode_seed: EpisodeSeed) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.finished: list[Episode] = []
        self.inexact: list[int] = []
        self._episode_seed = episode_seed
        self.observation, self.time, self._step = make_arrays(spec, num_envs)
        self._state = np.zeros((4, num_envs))
        self._x, self._x_dot, self._theta, self._theta_dot = self._state
        self._rate = np.zeros((4, num_envs))  # d state / dt
        self._actions = np.zeros((spec.time_limit, num_envs), np.uint8)
        self._row = 0  # of the next actions
        self._index = [-1] * num_envs
        self._seed = [0] * num_envs
        self._started = False

    def start(self) -> None:
        """Reset every environment to its first episode; nothing happens the second time."""
        if not self._started:
            self._started = True
            for i in range(self.num_envs):
                self._begin_episode(i)

    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> Step:
        """Step every environment; those that ended begin their next episode.

        actions: [B] integers 0 or 1. Raises EnvironmentFailure for others.
        active: [B] bool, which environments to step, None for all; the others stay as they are, and so do their rows
            of the answer, whatever their actions.
        """
        if active is not None and not active.all():
            return self._step_some(actions, active)
        self._record(actions)
        self._advance(actions)
        self.time += 1
        reward, terminated, truncated, successor = self._step
        reward.fill(1.0)
        successor[...] = self.observation[...] = self._state.T
        fallen = self._fallen()
        ended = fallen | (self.time >= self.spec.time_limit)
        terminated[...] = fallen
        truncated[...] = ended > fallen
        if np.count_nonzero(ended):
            self._end_episodes(ended)
        return self._step

    def _step_some(self, actions: np.ndarray, active: np.ndarray) -> Step:
        """As `step`: all are moved, and those that wait are put back."""
        actions, waiting = np.where(active, actions, 0), ~active
        self._record(actions)
        for i in np.flatnonzero(waiting & (self.time > 0)).tolist():
            self._actions[:, i] = np.roll(self._actions[:, i], 1)  # its actions stay the last rows of the ring
        kept = self._state[:, waiting]
        self._advance(actions)
        self._state[:, waiting] = kept
        self.time += active
        reward, terminated, truncated, successor = self._step
        fallen = self._fallen()  # none that waits: its episode is open
        ended = fallen | (self.time >= self.spec.time_limit)
        reward[active] = 1.0
        successor[active] = self.observation[active] = self._state.T[active]
        terminated[active] = fallen[active]
        truncated[active] = (ended > fallen)[active]
        if np.count_nonzero(ended):
            self._end_episodes(ended)
        return self._step

    def _record(self, actions: np.ndarray) -> None:
        if actions.shape != (self.num_envs,) or np.count_nonzero(actions >> 1):
            raise EnvironmentFailure(
                f"{self.spec.id}: takes {self.num_envs} actions 0 or 1, not {actions.tolist()}; check the algorithm"
            )
        self._actions[self._row] = actions
        self._row = (self._row + 1) % len(self._actions)

    def _end_episodes(self, ended: np.ndarray) -> None:
        for i in np.flatnonzero(ended).tolist():
            length = int(self.time[i])
            self.finished.append(Episode(i, self._index[i], self._seed[i], float(length), length))
            self._begin_episode(i)

    def _advance(self, actions: np.ndarray) -> None:
        """One step of explicit Euler."""
        theta, x_dot, theta_dot, rate = self._theta, self._x_dot, self._theta_dot, self._rate
        cos, sin = np.cos(theta), np.sin(theta)
        push = (FORCES.take(actions) + POLE_MOMENT * np.square(theta_dot) * sin) / TOTAL_MASS
        inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS)
        rate[0], rate[2] = x_dot, theta_dot
        rate[3] = theta_acceleration = (GRAVITY * sin - cos * push) / inertia
        rate[1] = push - POLE_MOMENT * theta_acceleration * cos / TOTAL_MASS
        self._state += SECONDS * rate

    def _fallen(self) -> np.ndarray:
        return (np.abs(self._x) > X_LIMIT) | (np.abs(self._theta) > THETA_LIMIT)

    def not_finite(self) -> list[NotFinite]:
        """Nothing: an episode ends while its numbers are bounded."""
        return []

    def drain_finished(self, envs: range | None = None) -> list[Episode]:
        taken, self.finished = drained(self.finished, envs)
        return taken

    def close(self) -> None:
        """There is nothing to close."""

    def _begin_episode(self, i: int) -> None:
        self._index[i] += 1
        self._seed[i] = seed = self._episode_seed(i, self._index[i])
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self.observation[i] = self._state[:, i] = generator.uniform(-START, START, 4)
        self.time[i] = 0

    # ---------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        rows = [np.arange(self._row - time, self._row) for time in self.time.tolist()]
        return {
            "started": self._started,
            "observation": self.observation.copy(),
            "finished": [list(episode) for episode in self.finished],
            "episodes": [
                {"index": index, "actions": self._actions[rows[i] % len(self._actions), i].astype(np.int64)}
                for i, index in enumerate(self._index)
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play each unfinished episode again from its seed, all of them up to the same last row.

        One that does not come out the same is left for the next episode and named in `inexact`.
        """
        self._started = state["started"]
        self.finished = [Episode(*values) for values in state["finished"]]
        if not self._started:
            return
        played = [episode["actions"] for episode in state["episodes"]]
        longest = max(map(len, played))
        for i, (episode, actions) in enumerate(zip(state["episodes"], played, strict=True)):
            self._index[i] = episode["index"] - 1
            self._begin_episode(i)
            self._actions[longest - len(actions) : longest, i] = actions
        lengths = np.array([len(actions) for actions in played])
        ended = self._play(longest, longest - lengths)
        self._row = longest % len(self._actions)
        self.time[:] = lengths
        self.observation[...] = self._state.T
        for i in range(self.num_envs):
            if ended[i] or not np.array_equal(self.observation[i], state["observation"][i]):
                self.inexact.append(i)
                self._begin_episode(i)

    def _play(self, num_rows: int, begins: np.ndarray) -> np.ndarray:
        """Step through the first rows of actions, environment i from row `begins[i]` on; whether each one ended."""
        ended = np.zeros(self.num_envs, bool)
        for row in range(num_rows):
            waiting = begins > row
            kept = self._state[:, waiting]
            self._advance(self._actions[row])
            self._state[:, waiting] = kept
            ended |= self._fallen()
        return ended
