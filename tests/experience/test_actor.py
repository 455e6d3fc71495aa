"""Acting by a program is acting by the algorithm on the torch modules."""

import functools
import itertools

import numpy as np
import pytest
import torch

from rlexp.experience.actor import Actor
from rlexp.functional.exploration import EpsilonGreedy
from rlexp.functional.schedules import linear
from rlexp.networks.layers import Linear
from rlexp.state import TrainState
from rlexp.streams import Stream
from rlexp.types import ActorOutput, Box, Discrete, EnvSpec, Noise, Progress
from tests.algorithms.runs import built
from tests.experience.parts import make_normaliser
from tests.learner import how

ROLLOUT = ("experience.num_envs=2", "experience.rollout_length=8")
CASES = {
    "ppo": ("algorithm=ppo", *ROLLOUT),
    "ppo, box": ("algorithm=ppo", "env=pendulum", *ROLLOUT),
    "ppo, shared encoder": ("algorithm=ppo", *ROLLOUT, "algorithm.shared_encoder=true"),
    "ppo, normalised": ("algorithm=ppo", *ROLLOUT, "normalization=observations"),
    "a2c": ("algorithm=a2c", *ROLLOUT),
    "reinforce": ("algorithm=reinforce",),
    "dqn": ("algorithm=dqn", "experience.num_envs=2"),
    "dqn, layer norm": ("algorithm=dqn", "experience.num_envs=2", "network.layer_norm=true", "network.activation=elu"),
    "sac": ("algorithm=sac", "env=pendulum", "experience.num_envs=2"),
}
SEEDS = (3, 0)


def made(words: tuple[str, ...], seeds: str):
    parts = built(*words, "network.hidden=[8]", "env.time_limit=40", seeds)
    parts.close()
    return parts


def inputs(parts, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations and noise, [B, ...]."""
    generator = torch.Generator().manual_seed(seed)
    size = parts.state.modules[next(iter(parts.state.modules))]
    width = next(layer.in_features for layer in size.modules() if isinstance(layer, Linear))
    return torch.randn(rows, width, generator=generator).numpy(), Stream(seed, "acting").noise(parts.actor.noise, rows)


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_it_is_the_algorithm_on_the_modules(words: tuple[str, ...]) -> None:
    parts = made(words, "seed=0")
    state, actor = parts.state, parts.actor
    for k, (env_steps, explore) in enumerate(itertools.product((0, 500, 9000), (True, False))):
        progress = state.progress._replace(env_steps=env_steps, updates=k)
        observation, noise = inputs(parts, 7, seed=k)
        scaled, randomness = torch.from_numpy(actor._scaling(observation)), torch.from_numpy(noise)
        with torch.no_grad():
            output = parts.algorithm.act(state.nets, scaled, None, randomness, progress, explore=explore)
        expected, action = output.action.numpy(), actor(observation, noise, progress, explore=explore)
        assert action.dtype == expected.dtype
        np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)
        kept = action.copy()
        actor(-observation, noise, progress, explore=explore)
        assert np.array_equal(action, kept)
        for flat in state.flats.values():
            flat.values.add_(0.1)
    assert len(actor._programs) == 2
    assert None not in actor._programs.values()


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_stacked_seeds_act_as_each_alone(words: tuple[str, ...], rows: int, explore: bool) -> None:
    """Bit for bit."""
    together = made(words, f"seeds=[{SEEDS[0]},{SEEDS[1]}]")
    singles = [made(words, f"seed={seed}") for seed in SEEDS]
    progress = Progress(700, 3, singles[0].state.progress.total_env_steps)
    given = [inputs(singles[0], rows, seed) for seed in SEEDS]
    both = [np.concatenate(x) for x in zip(*given, strict=True)]
    actions = together.actor(*both, progress, explore=explore)
    alone = [single.actor(*x, progress, explore=explore) for single, x in zip(singles, given, strict=True)]
    assert np.array_equal(actions, np.concatenate(alone))
    assert None not in together.actor._programs.values()


# --------------------------------------------------------------------------------------------- of a user's algorithm

SPEC = EnvSpec("test", Box((3,)), Discrete(4), 10, False)


class Users:
    """Acts by `choose(q_value, noise, progress)`."""

    def __init__(self, choose) -> None:
        self.choose = choose
        self.calls = 0

    def noise(self, spec) -> Noise:
        return Noise("uniform", 2)

    def act(self, nets, observation, core_state, noise, progress, *, explore: bool) -> ActorOutput:
        self.calls += 1
        return ActorOutput(self.choose(nets.q(observation), noise, progress), core_state)


def acting(choose, seed=0) -> tuple[Users, Actor]:
    state = TrainState(
        {"q": Linear(3, 4)}, {}, {"q": how()}, seed=seed, device=torch.device("cpu"), total_env_steps=100
    )
    algorithm = Users(choose)
    return algorithm, Actor(algorithm, state, SPEC, make_normaliser(SPEC).scaling, programs=True)


def observed(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, generator=generator).numpy(), torch.rand(rows, 2, generator=generator).numpy()


def test_epsilon_falls_with_progress() -> None:
    greedy = EpsilonGreedy(epsilon=functools.partial(linear, start=1.0, end=0.0, fraction=0.5))
    algorithm, actor = acting(greedy)
    observation, noise = observed()
    best = acting(lambda q_value, noise, progress: q_value.argmax(-1))[1](
        observation, noise, Progress(0, 0, 100), explore=True
    )
    shares = []
    for env_steps in (0, 10, 25, 40, 50, 90):
        action = actor(observation, noise, Progress(env_steps, 0, 100), explore=True)
        q_value = actor.state.nets.q(torch.from_numpy(observation))
        expected = greedy(q_value, torch.from_numpy(noise), Progress(env_steps, 0, 100))
        assert np.array_equal(action, expected.numpy())
        shares.append((action == best).mean())
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1
    assert algorithm.calls == 1


def by_branch(q_value, noise, progress):
    return q_value.argmax(-1) if progress.env_steps < 50 else q_value.argmin(-1)


def by_interpolation(q_value, noise, progress):
    epsilon = float(np.interp(progress.env_steps, [0, 100], [1.0, 0.0]))
    return torch.where(noise[..., 0] < epsilon, 0, q_value.argmax(-1))


def by_table(q_value, noise, progress):
    return q_value.argmax(-1) + [0, 1, 2][progress.env_steps // 50]


def by_numbers_read_back(q_value, noise, progress):
    return q_value.argmax(-1) if q_value.sum().item() > 0 else q_value.argmin(-1)


@pytest.mark.parametrize("choose", [by_branch, by_interpolation, by_table, by_numbers_read_back])
@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["alone", "stacked"])
def test_what_branches_on_numbers_acts_plainly(choose, seed) -> None:
    algorithm, actor = acting(choose, seed)
    observation, noise = observed(6)
    for env_steps in (0, 49, 50, 100):
        progress = Progress(env_steps, 0, 100)
        action = actor(observation, noise, progress, explore=True)
        shape = (2, 3) if isinstance(seed, list) else (6,)
        with torch.no_grad():
            q_value = actor.state.acting_nets().q(torch.from_numpy(observation).view(*shape, 3))
        expected = choose(q_value, torch.from_numpy(noise).view(*shape, 2), progress)
        assert np.array_equal(action, expected.flatten().numpy())
    assert algorithm.calls == 1 + 4
    assert list(actor._programs.values()) == [None]
