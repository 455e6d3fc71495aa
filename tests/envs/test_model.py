"""The finite models against their definition and against the environments they are models of."""

import numpy as np
import pytest
import torch

from rlexp.envs.make import make_env
from rlexp.envs.model import read_model
from tests.conftest import env_spec

NAMES = ["frozen_lake", "cliff_walking", "taxi"]


@pytest.fixture(scope="module", params=NAMES)
def known(request):
    spec = env_spec(request.param)
    return request.param, make_env(spec.id, {}), read_model(spec, {})


def test_rows_are_probabilities_and_what_is_missing_ended(known) -> None:
    _, env, model = known
    assert model.transition.dtype == model.reward.dtype == torch.float64
    assert (model.transition >= 0).all()
    mass = model.transition.sum(-1)
    assert (mass <= 1 + 1e-12).all()
    for s, actions in env.unwrapped.P.items():
        for a, outcomes in actions.items():
            ending = sum(probability for probability, _, _, ended in outcomes if ended)
            assert mass[s, a].item() == pytest.approx(1 - ending, abs=1e-12)
            expected = sum(probability * reward for probability, _, reward, _ in outcomes)
            assert model.reward[s, a].item() == pytest.approx(expected, abs=1e-12)
    assert (mass < 0.5).any(), "no end in the whole model"


def test_frequencies_of_a_slippery_lake() -> None:
    """5,000 steps from each of a few states: successors, rewards and ends as often as the model says."""
    spec, count = env_spec("frozen_lake"), 5000
    env, model = make_env(spec.id, {}), read_model(spec, {})
    env.reset(seed=0)
    for s, a in [(0, 1), (6, 2), (14, 2), (14, 1), (10, 0)]:
        successors, reward = np.zeros(16), 0.0
        for _ in range(count):
            env.unwrapped.s = s
            n, gain, ended, _, _ = env.step(a)
            reward += gain
            successors[n] += not ended
        expected = model.transition[s, a].numpy()
        assert (np.abs(successors / count - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / count)).all()
        mean = model.reward[s, a].item()
        assert abs(reward / count - mean) <= 4.5 * np.sqrt(mean * (1 - mean) / count)
    assert model.reward[14, 2].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["cliff_walking", "taxi"])
def test_every_step_of_a_deterministic_world(name: str) -> None:
    spec = env_spec(name)
    env, model = make_env(spec.id, {}), read_model(spec, {})
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for s in rng.permutation(spec.observation.n)[:100]:
        for a in range(spec.action.n):
            env.unwrapped.s = int(s)
            n, reward, ended, _, _ = env.step(a)
            assert model.reward[s, a] == reward
            assert model.transition[s, a].sum() == (not ended)
            assert ended or model.transition[s, a, n] == 1


def test_arguments_reach_the_model() -> None:
    spec = env_spec("frozen_lake")
    certain = read_model(spec, {"is_slippery": False}).transition
    assert set(certain.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(certain, read_model(spec, {}).transition)
