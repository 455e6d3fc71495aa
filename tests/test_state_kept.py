"""What a train state saves: it continues bit for bit, and weights of other networks are refused."""

import functools
import math

import pytest
import torch

from rlexp.functional.schedules import linear
from rlexp.state import TrainState
from rlexp.storage.checkpoints import load_tree, save_tree
from tests.learner import RULES, batch, changed, how, loss, make


def go_on(state: TrainState, steps: int) -> dict:
    for _ in range(steps):
        order = state.permutation("minibatches", 16)
        state.minimize(("actor", "critic"), loss, batch(state.progress.updates)[order[:7]])
        state.track("target_critic", "critic", 0.1)
    return state.weights()


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_saved_state_continues_bit_for_bit(rule, tmp_path) -> None:
    schedule = functools.partial(linear, start=0.1, end=0.0, fraction=1.0)
    optimizations = {"actor": how(rule, schedule), "critic": how(rule)}
    state, resumed = make(optimizations), make(optimizations, seed=0)
    go_on(state, 5)
    save_tree(tmp_path / "a", state.state_dict())
    expected = go_on(state, 10)
    go_on(resumed, 2)  # whatever it did before
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    assert resumed.progress.updates == 5
    assert changed(resumed, expected)
    go_on(resumed, 10)
    assert not changed(resumed, expected)
    assert resumed.progress == state.progress


def test_a_state_saved_before_the_first_step_continues_too(tmp_path) -> None:
    state, resumed = make(), make()
    save_tree(tmp_path / "a", state.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "a"))
    assert not changed(resumed, state.weights())
    expected = go_on(state, 5)
    go_on(resumed, 5)
    assert not changed(resumed, expected)


def test_weights_are_copies_and_load_into_the_modules() -> None:
    state, other = make(), make(seed=1)
    weights = state.weights()
    go_on(state, 1)
    other.load_weights(weights)
    assert not changed(other, make().weights())
    assert torch.equal(other.modules["actor"](batch()), make().modules["actor"](batch()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "critic": w["critic"][:-1]}, r"network critic: saved parameters \(40,\), configured \(41,\)"),
        (lambda w: {k: v for k, v in w.items() if k != "actor"}, "network actor: saved parameters none, configured"),
        (lambda w: {**w, "q": w["actor"]}, r"network q: saved parameters \(8,\), configured none"),
    ],
)
def test_weights_of_other_networks_are_refused_by_name(change, message: str) -> None:
    state = make()
    before = state.weights()
    with pytest.raises(ValueError, match=message):
        state.load_weights(change(make(seed=1).weights()))
    assert not changed(state, before)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["actor", "target_critic"])
def test_is_finite_sees_every_parameter(name: str, number: float) -> None:
    state = make()
    assert state.finite() == [True]
    with torch.no_grad():
        list(state.modules[name].parameters())[-1].view(-1)[-1] = number
    assert state.finite() == [False]
