"""Seeds apart: each is a train state alone, whatever happens to those beside it, and all act at once."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlexp.functional.schedules import linear
from rlexp.networks.layers import Linear
from rlexp.seeds import SeedsApart
from rlexp.state import TrainState
from rlexp.types import Noise
from tests.learner import ADAM, RULES, batch, critic, how, loss, make
from tests.test_state_stacked import NETWORKS

SEEDS = [3, 0, 7]
FALLING = functools.partial(linear, start=1e-2, end=1e-3, fraction=1.0)


def apart(rule=ADAM) -> SeedsApart:
    networks = {"actor": Linear(3, 2).double(), "critic": critic(), "target_critic": critic()}
    optimizations = {name: how(rule, FALLING) for name in ("actor", "critic")}
    where = torch.device("cpu")
    return SeedsApart(
        networks, {"target_critic": "critic"}, optimizations, seeds=SEEDS, device=where, total_env_steps=1000
    )


def alone(rule=ADAM) -> list[TrainState]:
    return [make({name: how(rule, FALLING) for name in ("actor", "critic")}, seed) for seed in SEEDS]


def learn(member: TrainState, k: int, length: int) -> None:
    """What an algorithm may do in an update: draw, step, replace, move its target."""
    x = torch.cat([batch(1000 * k + n) for n in range(length)])
    order = member.permutation("minibatches", len(x))
    noise = member.draw("noise", Noise("normal", 3), len(x)).double()
    member.minimize(("actor", "critic"), loss, x[order] + noise, 2.0)
    member.track("target_critic", "critic", 0.1)


def assert_equal(seeds: SeedsApart, states: list[TrainState]) -> None:
    for index, state in enumerate(states):
        for name, values in state.weights().items():
            assert torch.equal(seeds.weights_of(index)[name], values), (index, name)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_learns_as_it_does_alone(rule) -> None:
    """Batches of other lengths, updates at other steps, and one that stops early."""
    seeds, states = apart(rule), alone(rule)
    assert_equal(seeds, states)
    steps = [0, 0, 0]
    for k in range(12):
        for s in range(3):
            if (s, k) >= (2, 4) or k % (s + 1):
                continue
            steps[s] += 50 * (s + 1)
            states[s].progress = states[s].progress._replace(env_steps=steps[s])
            seeds.advance(SimpleNamespace(env_steps_of=steps))
            learn(states[s], k, s + 1)
            learn(seeds.members[s], k, s + 1)
    assert_equal(seeds, states)
    assert [seeds.progress_of(s) for s in range(3)] == [state.progress for state in states]
    assert [member.learning_rate() for member in seeds.members] == [state.learning_rate() for state in states]


def test_progress_is_that_of_the_least_far_that_goes_on() -> None:
    seeds = apart()
    seeds.advance(SimpleNamespace(env_steps_of=[400, 300, 500]))
    assert seeds.progress.env_steps == 300
    seeds.freeze(1)
    assert (seeds.progress.env_steps, seeds.frozen) == (400, [False, True, False])


def test_saved_and_loaded_it_goes_on_alike() -> None:
    seeds, resumed = apart(), apart()
    for s, member in enumerate(seeds.members[:2]):
        learn(member, s, s + 1)
    seeds.freeze(2)
    resumed.load_state_dict(copy.deepcopy(seeds.state_dict()))
    assert resumed.frozen == [False, False, True]
    for each in (seeds, resumed):
        learn(each.members[1], 5, 3)
    assert_equal(resumed, list(seeds.members))
    assert [m.progress.updates for m in resumed.members] == [1, 2, 0]


def test_loaded_weights_and_numbers_that_are_not_finite() -> None:
    seeds, other = apart(), apart()
    learn(other.members[1], 0, 1)
    weights = [other.weights_of(index) for index in range(3)]
    seeds.load_weights({name: torch.stack([w[name] for w in weights]) for name in weights[0]})
    assert_equal(seeds, list(other.members))
    with torch.no_grad():
        seeds.members[1].modules["actor"].weight[0, 0] = torch.nan
    assert seeds.finite() == [True, False, True]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [1, 4])
def test_they_act_at_once_as_each_does_alone(kind: str, rows: int) -> None:
    """Also right after a step; a layer that the NumPy path does not know is called seed by seed."""
    where = torch.device("cpu")
    more = {"device": where, "total_env_steps": 9}
    seeds = SeedsApart({"net": NETWORKS[kind]()}, {}, {"net": how()}, seeds=SEEDS, **more)
    states = [TrainState({"net": NETWORKS[kind]()}, {}, {"net": how()}, seed=seed, **more) for seed in SEEDS]
    generator = torch.Generator().manual_seed(0)
    shape = (3, rows) if kind == "integers" else (3, rows, 3)
    x = torch.randint(4, shape, generator=generator) if kind == "integers" else torch.randn(shape, generator=generator)
    nets = seeds.acting_nets()
    for _ in range(3):
        with torch.inference_mode():
            together = nets.net(x)
            for s, state in enumerate(states):
                assert torch.equal(together[s], state.acting_nets().net(x[s]))
        for s, state in enumerate(states[1:], 1):
            for each in (state, seeds.members[s]):
                each.minimize("net", lambda nets, x: (nets.net(x).square().sum(), {}), x[s])


def test_each_seed_s_parameters_begin_on_a_cache_line() -> None:
    for member in apart().members:
        for flat in member.flats.values():
            assert flat.values.data_ptr() % 64 == flat.gradient.data_ptr() % 64 == 0


def test_modules_are_not_shared() -> None:
    network = nn.Sequential(Linear(3, 2))
    seeds = SeedsApart(
        {"net": network}, {}, {"net": how()}, seeds=[0, 1], device=torch.device("cpu"), total_env_steps=9
    )
    modules = [member.modules["net"] for member in seeds.members]
    assert len({id(module) for module in [network, *modules]}) == 3
