"""TrainState: who is stepped and who is not, clipping, Adam as torch has it, random numbers."""

import copy
import functools
import math

import pytest
import torch

from rlexp.functional.schedules import linear
from rlexp.networks.layers import Table
from rlexp.state import TrainState
from tests.learner import RULES, batch, changed, critic, how, loss, make

# ------------------------------------------------------------------------------------------------------------ minimise


@pytest.mark.parametrize("names", ["actor", "critic", ("actor",), ("actor", "critic"), ("critic", "actor")])
def test_only_the_named_networks_change(names) -> None:
    state = make()
    before = state.weights()
    for k in range(3):
        metrics = state.minimize(names, loss, batch(k))
    expected = {names} if isinstance(names, str) else set(names)
    assert changed(state, before) == expected
    assert set(metrics) == {"loss/all", *(f"optimizer/grad_norm_{name}" for name in expected)}
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert state.progress.updates == 3


def test_targets_start_as_copies_get_no_gradient_and_no_step() -> None:
    state = make()
    assert torch.equal(state.weights()["critic"], state.weights()["target_critic"])
    assert not any(p.requires_grad for p in state.modules["target_critic"].parameters())
    state.minimize(("actor", "critic"), loss, batch())
    assert all(p.grad is None for module in state.modules.values() for p in module.parameters())
    with pytest.raises(KeyError):
        state.minimize("target_critic", loss, batch())


def test_a_descent_step_lowers_the_loss() -> None:
    state = make({"actor": how(learning_rate=1e-3), "critic": how(learning_rate=1e-3)})
    before = state.evaluate(loss, batch())[0]
    state.minimize(("actor", "critic"), loss, batch())
    assert state.evaluate(loss, batch())[0] < before


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 1e6])
def test_twenty_steps_equal_those_of_torch(max_grad_norm: float | None) -> None:
    state = make({"actor": how(max_grad_norm=max_grad_norm), "critic": how(max_grad_norm=max_grad_norm)})
    ordinary = {name: copy.deepcopy(module) for name, module in state.modules.items()}
    nets = type(state.nets)(**ordinary)
    optimizers = {
        name: torch.optim.Adam(ordinary[name].parameters(), lr=1e-2, eps=1e-5) for name in ("actor", "critic")
    }
    for k in range(20):
        metrics = state.minimize(("actor", "critic"), loss, batch(k))
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss(nets, batch(k))[0].backward()
        for name, optimizer in optimizers.items():
            bound = math.inf if max_grad_norm is None else max_grad_norm
            norm = torch.nn.utils.clip_grad_norm_(ordinary[name].parameters(), bound)
            torch.testing.assert_close(metrics[f"optimizer/grad_norm_{name}"], norm, rtol=1e-10, atol=0)
            optimizer.step()
    for name, module in ordinary.items():
        for p, q in zip(module.parameters(), state.modules[name].parameters(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-9, atol=1e-12)


def test_clipping_bounds_the_step_and_the_norm_shown_is_before_it() -> None:
    rule = functools.partial(torch.optim.SGD)
    state = make({"actor": how(rule, 1.0, 0.5), "critic": how(rule, 1.0, None)})
    before = state.weights()
    metrics = state.minimize(("actor", "critic"), loss, batch(), 100.0)
    after = state.weights()
    assert metrics["optimizer/grad_norm_actor"] > 10
    assert torch.linalg.vector_norm(after["actor"] - before["actor"]).item() == pytest.approx(0.5, abs=1e-6)
    unbounded = torch.linalg.vector_norm(after["critic"] - before["critic"])
    torch.testing.assert_close(unbounded, metrics["optimizer/grad_norm_critic"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_an_inactive_step_leaves_parameters_and_moments(rule, warm: int) -> None:
    """Also where it would be the first: the steps that follow are those of a state that never took it."""
    state, twin = (make({"actor": how(rule), "critic": how(rule)}) for _ in range(2))
    on, off = torch.ones(()), torch.zeros(())
    for k in range(warm):
        for one in (state, twin):
            one.minimize(("actor", "critic"), loss, batch(k), active=on)
    before = state.weights()
    state.minimize(("actor", "critic"), loss, batch(100), active=off)
    state.minimize(("actor", "critic"), lambda nets, x: loss(nets, x * math.nan), batch(), active=off)
    assert not changed(state, before)
    for name, network in state.trained.items():
        if warm:
            pairs = zip(network.buffers()[0], twin.trained[name].buffers()[0], strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    for k in range(3):
        for one in (state, twin):
            one.minimize(("actor", "critic"), loss, batch(50 + k), active=on)
    assert not changed(state, twin.weights())


def test_an_active_step_equals_one_without_a_mask() -> None:
    state, twin = make(), make()
    state.minimize(("actor", "critic"), loss, batch(), active=torch.ones(()))
    twin.minimize(("actor", "critic"), loss, batch())
    assert not changed(state, twin.weights())


def test_the_learning_rate_follows_its_schedule() -> None:
    schedule = functools.partial(linear, start=0.1, end=0.0, fraction=1.0)
    rule = functools.partial(torch.optim.SGD)
    state = make({"actor": how(rule, schedule, None), "critic": how(rule)})
    for env_steps, rate in ((0, 0.1), (500, 0.05), (750, 0.025), (1000, 0.0)):
        state.progress = state.progress._replace(env_steps=env_steps)
        before = state.weights()["actor"]
        norm = state.minimize("actor", loss, batch())["optimizer/grad_norm_actor"].item()
        assert state.learning_rate() == pytest.approx(rate)
        moved = torch.linalg.vector_norm(state.weights()["actor"] - before).item()
        assert moved == pytest.approx(rate * norm, rel=1e-9, abs=1e-15)


def test_each_network_has_its_own_optimization() -> None:
    rule = functools.partial(torch.optim.SGD)
    state = make({"actor": how(rule, 0.0), "critic": how(rule, 1.0, 0.25)})
    before = state.weights()
    state.minimize(("actor", "critic"), loss, batch(), 100.0)
    assert changed(state, before) == {"critic"}
    moved = torch.linalg.vector_norm(state.weights()["critic"] - before["critic"]).item()
    assert moved == pytest.approx(0.25, abs=1e-6)


# ------------------------------------------------------------------------------------------- targets, rules, evaluation


@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_track(tau: float) -> None:
    state = make()
    for k in range(3):
        state.minimize("critic", loss, batch(k))
    source, target = state.weights()["critic"], state.weights()["target_critic"]
    before = state.weights()
    state.track("target_critic", "critic", tau)
    expected = tau * source + (1 - tau) * target
    torch.testing.assert_close(state.weights()["target_critic"], expected, rtol=1e-12, atol=1e-15)
    assert changed(state, before) == ({"target_critic"} if tau else set())
    if tau == 1:
        assert torch.equal(state.modules["target_critic"](batch()), state.modules["critic"](batch()))


def test_replace_sets_the_leaves_without_an_optimizer() -> None:
    networks = {"q": Table(3, 2), "other": Table(2)}
    state = TrainState(networks, {}, {}, seed=0, device=torch.device("cpu"), total_env_steps=10)
    metrics = state.replace("q", lambda nets, x: ({"table": nets.q.table + x}, {"a": x}), torch.tensor(2.0))
    assert state.modules["q"].table.tolist() == [[2.0, 2.0]] * 3
    assert state.weights()["q"].tolist() == [2.0] * 6
    assert not state.weights()["other"].any()
    assert metrics == {"a": torch.tensor(2.0)}
    assert state.progress.updates == 1
    assert state.learning_rate() is None


def test_evaluate_takes_no_gradient() -> None:
    state = make()
    value, _ = state.evaluate(loss, batch())
    assert not value.requires_grad
    assert torch.equal(value, loss(state.nets, batch())[0].detach())


def test_acting_networks_follow_the_learner() -> None:
    state = make()
    acting = state.acting_nets()
    for k in range(3):
        state.minimize(("actor", "critic"), loss, batch(k))
        torch.testing.assert_close(acting.actor(batch()), state.modules["actor"](batch()).detach())
        torch.testing.assert_close(acting.critic(batch()), state.modules["critic"](batch()).detach())


# ---------------------------------------------------------------------------------------------------------- randomness


def test_weights_depend_on_the_seed_and_on_nothing_global() -> None:
    torch.manual_seed(1)
    one = make(seed=0).weights()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = make(seed=0).weights(), make(seed=1).weights()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_networks_of_one_shape_begin_apart() -> None:
    networks = {"one": critic(), "other": critic()}
    state = TrainState(networks, {}, {}, seed=0, device=torch.device("cpu"), total_env_steps=10)
    assert not torch.equal(state.weights()["one"], state.weights()["other"])


def test_streams_are_kept_by_purpose() -> None:
    state = make()
    first = state.permutation("minibatches", 50)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, state.permutation("minibatches", 50))
    assert torch.equal(first, make().permutation("minibatches", 50))
    assert not torch.equal(first, make().permutation("other", 50))
    assert not torch.equal(first, make(seed=1).permutation("minibatches", 50))
