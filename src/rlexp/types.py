"""The nouns of rlexp on one screen: what flows between environment, experience, algorithm and loop.

    actor = Actor(algorithm, state, spec, scaling)
    while state.progress.env_steps < total_env_steps:
        batch = experience.next(actor, state.progress)       # a Batch, or None while data only come in
        state.advance(experience)
        for member, share in zip(state.members, state.shares(batch)):       # one, but for seeds that are not in step
            update = algorithm.update(member, share, member.progress)
            experience.feedback(member, update)
        for callback in callbacks:
            callback(state.progress, updates, state)         # updates of each member

Shapes: T time, B environments or batch, *O one observation, *A one action, S states of a finite model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # a worker process steps environments without torch: it starts sooner and is smaller
    from torch import Tensor, nn

Metrics = dict[str, "Tensor"]


class Transition(NamedTuple):
    """Steps of environments, [T, B, ...]. Replay yields T = 1 where an algorithm looks one step ahead."""

    observation: Tensor  # [T, B, *O]
    action: Tensor  # [T, B, *A]
    reward: Tensor  # [T, B]
    terminated: Tensor  # [T, B] the MDP ended: no bootstrap
    truncated: Tensor  # [T, B] only the clock ended: bootstrap, and cut the trace
    next_observation: Tensor  # [T, B, *O] the true successor, never the observation after a reset
    time: Tensor  # [T, B] step within the episode, from 0
    log_prob: Tensor | None = None  # [T, B] under the behaviour policy; None where it was not recorded
    valid: Tensor | None = None  # [T, B] 1 on steps, 0 on padding; None where every row is a step


class MDP(NamedTuple):
    """A finite model. Transitions into a terminal state carry no mass, so their bootstrap is 0."""

    transition: Tensor  # [S, A, S] probability of the next state, 0 where the episode ends
    reward: Tensor  # [S, A] expected reward


class Progress(NamedTuple):
    """How far the run is; the only thing that schedules read."""

    env_steps: int
    updates: int
    total_env_steps: int


class Update(NamedTuple):
    """What one update of an algorithm reports. Metrics are 0-d tensors and stay on their device."""

    metrics: Metrics
    td_error: Tensor | None = None  # [B], for experiences that order their samples by it


class ActorOutput(NamedTuple):
    action: Tensor  # [B, *A]
    core_state: Any  # recurrent state after the step; None for feed-forward networks


class Estimate(NamedTuple):
    """An advantage and the target that its value function should regress on; constants, no gradient."""

    advantage: Tensor  # [T, *B]
    value_target: Tensor  # [T, *B]


class Noise(NamedTuple):
    """What `Algorithm.act` consumes per environment and step: `size` numbers of one distribution."""

    kind: Literal["uniform", "normal", "gumbel"]
    size: int


@dataclass(frozen=True)
class Discrete:
    """The integers 0 to n - 1."""

    n: int
    kind: ClassVar[str] = "discrete"
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[type] = np.int64


@dataclass(frozen=True)
class Box:
    """Real vectors or tensors; `low` and `high` bound every element (infinite where open)."""

    shape: tuple[int, ...]
    low: float = -math.inf
    high: float = math.inf
    kind: ClassVar[str] = "box"
    dtype: ClassVar[type] = np.float32


Space = Discrete | Box


@dataclass(frozen=True)
class EnvSpec:
    """What is known of an environment before it is made."""

    id: str
    observation: Space
    action: Space
    time_limit: int
    has_model: bool


Schedule = Callable[[Progress], float]


class Estimator(Protocol):
    """One signature for the family, so that a configuration can swap its members. All arguments [T, *B]."""

    def __call__(
        self, reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, done: Tensor, log_rho: Tensor
    ) -> Estimate: ...


class Baseline(Protocol):
    """Subtracted from a return that carries no value of its own. All arguments [T, B]."""

    uses_value: bool  # whether a critic must be there

    def __call__(self, returns: Tensor, value: Tensor, time: Tensor, valid: Tensor) -> Tensor: ...


class PolicyFamily(Protocol):
    """Distributions over actions as functions of their parameters, the last dim of a network's output."""

    noise: Noise

    def num_parameters(self) -> int: ...
    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor: ...
    def mode(self, parameters: Tensor) -> Tensor: ...
    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor: ...
    def entropy(self, parameters: Tensor) -> Tensor: ...


class Exploration(Protocol):
    """Turns action values into actions."""

    noise: Noise

    def __call__(self, q_value: Tensor, noise: Tensor, progress: Progress) -> Tensor: ...
    def metrics(self, num_actions: int, progress: Progress) -> dict[str, float]: ...


class Encoder(Protocol):
    """A network config: makes the torso of a network for an observation space."""

    takes: ClassVar[frozenset[str]]  # kinds of observation it accepts: "discrete", "vector", "image"

    def __call__(self, observation: Space) -> tuple[nn.Module, int]: ...  # the module and its output width


class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters and pure functions; it holds no tensor.

    Its positional fields are parts that the builder hands over by name; its keyword-only fields come from YAML.
    """

    actions: ClassVar[frozenset[str]]  # kinds of action space it can act in
    learns_from: ClassVar[str]  # the kind of batch it takes: an experience's `gives`
    needs: ClassVar[frozenset[str]]  # the optional config groups it uses; the others must be `none`, but for those
    # of `optional: ClassVar[frozenset[str]]`, where it has that: groups it uses where they are chosen
    targets: ClassVar[Mapping[str, str]]  # {"target_q": "q"}: copies that no optimizer steps

    def networks(self, spec: EnvSpec, encoder: Encoder | None) -> dict[str, nn.Module]: ...
    def noise(self, spec: EnvSpec) -> Noise: ...
    def act(
        self, nets: Any, observation: Tensor, core_state: Any, noise: Tensor, progress: Progress, *, explore: bool
    ) -> ActorOutput: ...
    def log_prob(self, nets: Any, observation: Tensor, action: Tensor) -> Tensor | None: ...
    def update(self, state: Any, batch: Any, progress: Progress) -> Update: ...
    def statistics(self, spec: EnvSpec, progress: Progress) -> dict[str, float]: ...


class Experience(Protocol):
    """What data comes, and when. Holds its own state and saves it.

    Where it is not in step and seeds are stacked, `next` gives a batch for each of them, None for one that takes no
    part, and `env_steps_of`, a list, says how far each is.
    """

    gives: ClassVar[str]
    in_step: ClassVar[bool]  # whether all seeds have taken as many steps at every turn

    @property
    def env_steps(self) -> int: ...
    @property
    def finished(self) -> bool: ...  # nothing more is to be learned from it, as from a sweep that converged
    def next(self, actor: Any, progress: Progress) -> Any | None: ...  # None: data came in, no update is due yet
    @property
    def owed(self) -> bool: ...  # whether more batches are due before new data come in
    def feedback(self, state: Any, update: Update) -> None: ...
    def statistics(self, index: int) -> dict[str, float]: ...  # of the seed at this place, since it was last asked for
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Seeds(Protocol):
    """The seeds of a run, as all but their algorithm see them: in step in one TrainState, or in SeedsApart.

    A place is an index into `seeds`.
    """

    device: Any
    stacked: bool  # whether batches, actions and weights have a first dim of seeds
    seeds: list[int]
    frozen: list[bool]  # whose numbers are not finite any more

    @property
    def progress(self) -> Progress: ...  # of the seed that is least far; what the loop and checkpoints go by
    @property
    def members(self) -> Sequence[Any]: ...  # train states; an algorithm updates one after the other
    def shares(self, batch: Any) -> Sequence[Any]: ...  # what of a batch each member learns from, None: nothing
    def advance(self, experience: Experience) -> None: ...  # take over how far each seed is
    def progress_of(self, index: int) -> Progress: ...
    def acting_nets(self) -> Any: ...
    def recording(self) -> AbstractContextManager[Any]: ...  # gives networks whose calls may be recorded
    def finite(self) -> list[bool]: ...
    def freeze(self, index: int) -> None: ...
    def weights_of(self, index: int) -> dict[str, Tensor]: ...
    def load_weights(self, weights: Mapping[str, Tensor]) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Callback(Protocol):
    """Told of every turn of the loop and of what each member learned; a returned string asks it to stop, and why."""

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Any) -> str | None: ...
