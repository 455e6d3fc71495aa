"""One update of A2C: who changes, what is reported, what the loss is, and an encoder that is shared."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributions

from rlexp.algorithms.a2c import A2C
from rlexp.functional.advantages import n_step, one_step_td
from rlexp.functional.distributions import Categorical
from rlexp.types import Estimate, Transition
from tests.algorithms.runs import built

SMALL = ("algorithm=a2c", "network.hidden=[8]")
SHARED = "algorithm.shared_encoder=true"
METRICS = {
    "loss/actor", "loss/critic", "policy/entropy", "value/mean", "value/target", "value/td_error",
    "value/explained_variance", "optimizer/grad_norm_actor", "optimizer/grad_norm_critic",
}  # fmt: skip


def updated(*words: str, turns: int = 1):
    parts = built(*SMALL, *words)
    for _ in range(turns):
        rollout = parts.experience.next(parts.actor, parts.state.progress)
        before = parts.state.weights()
        metrics = parts.algorithm.update(parts.state, rollout, parts.state.progress).metrics
    after = parts.state.weights()
    return parts, metrics, {name for name in after if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["cartpole", "pendulum", "frozen_lake"])
def test_contract(name: str, shared: bool) -> None:
    parts, metrics, changed = updated(f"env={name}", f"algorithm.shared_encoder={str(shared).lower()}", turns=3)
    encoder = {"encoder"} if shared else set()
    assert changed == {"actor", "critic"} | encoder == set(parts.state.modules)
    assert set(metrics) == METRICS | {f"optimizer/grad_norm_{name}" for name in encoder}
    for value in metrics.values():
        assert value.shape == ()
        assert torch.isfinite(value)
        assert not value.requires_grad
    assert parts.state.progress.updates == 3
    assert parts.experience.env_steps == 3 * 8 * 5


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    weights = [updated("env=cartpole", f"seed={seed}")[0].state.weights() for seed in (0, 0, 1)]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


def make(estimator=one_step_td, **changes) -> A2C:
    fields = {"gamma": 0.5, "value_coef": 0.7, "entropy_coef": 0.3, "shared_encoder": False}
    return A2C(Categorical(3), estimator, **{**fields, **changes})


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(-1)


# Three steps of one environment: one goes on, one terminates, one is truncated. V(o) = 10 o.
ROLLOUT = Transition(
    observation=column(1, 2, 3).unsqueeze(-1), action=torch.tensor([[0], [2], [1]]), reward=column(1, 1, 1),
    terminated=column(0, 1, 0), truncated=column(0, 0, 1), next_observation=column(2, 50, 8).unsqueeze(-1),
    time=torch.zeros(3, 1, dtype=torch.int64), log_prob=column(-1, -2, -0.5),
)  # fmt: skip
LOGITS = torch.tensor([[[0.1, 0.4, -1.0]], [[2.0, 0.0, 1.0]], [[0.5, 0.5, 0.0]]], dtype=torch.float64)


def nets() -> SimpleNamespace:
    logits, slope = LOGITS.clone().requires_grad_(), torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    critic = lambda observation: slope * observation[..., 0]  # noqa: E731
    return SimpleNamespace(actor=lambda observation: logits, critic=critic, logits=logits, slope=slope)


@pytest.mark.parametrize(
    ("estimator", "targets"),
    [
        (one_step_td, (11, 1, 41)),  # 1 + 0.5 V(s'), 1, 1 + 0.5 V(s')
        (lambda *columns: n_step(*columns, n_step=5), (1.5, 1, 41)),  # 1 + 0.5 (1), 1, 1 + 0.5 V(s')
    ],
    ids=["one step", "five steps"],
)
def test_the_loss_and_its_gradient_are_the_equation(estimator, targets) -> None:
    given = nets()
    loss, metrics = make(estimator).loss(given, ROLLOUT)
    policy = distributions.Categorical(logits=LOGITS[:, 0])
    chosen = ROLLOUT.action[:, 0]
    values = (10, 20, 30)
    surrogate = sum(float(policy.log_prob(chosen)[t]) * (targets[t] - values[t]) for t in range(3)) / 3
    critic = sum((values[t] - targets[t]) ** 2 for t in range(3)) / 6
    entropy = float(policy.entropy().mean())
    assert loss.item() == pytest.approx(-surrogate + 0.7 * critic - 0.3 * entropy)
    assert metrics["loss/actor"].item() == pytest.approx(-surrogate)
    assert metrics["loss/critic"].item() == pytest.approx(critic)
    assert metrics["policy/entropy"].item() == pytest.approx(entropy)
    assert metrics["value/mean"].item() == 20
    assert metrics["value/target"].item() == pytest.approx(sum(targets) / 3)
    assert metrics["value/td_error"].item() == pytest.approx((1 + 19 + 11) / 3)
    of_logits, of_slope = torch.autograd.grad(loss, (given.logits, given.slope))
    # d log pi(a) / d logits = indicator - probabilities; the advantage is a constant.
    indicator = torch.nn.functional.one_hot(chosen, 3)
    advantage = torch.tensor([targets[t] - values[t] for t in range(3)], dtype=torch.float64).unsqueeze(-1)
    of_entropy = -policy.probs * (policy.logits + policy.entropy().unsqueeze(-1))
    expected = (-(indicator - policy.probs) * advantage - 0.3 * of_entropy) / 3
    torch.testing.assert_close(of_logits[:, 0], expected)
    # Neither the target nor the advantage moves with the critic.
    assert of_slope.item() == pytest.approx(0.7 * sum((values[t] - targets[t]) * (t + 1) for t in range(3)) / 3)


def test_the_estimator_is_told_how_far_the_acting_policy_is() -> None:
    seen = []

    def estimator(reward, discount, value, next_value, done, log_rho) -> Estimate:
        seen.append((log_rho, discount, done))
        return one_step_td(reward, discount, value, next_value, done, log_rho)

    make(estimator).loss(nets(), ROLLOUT)
    log_rho, discount, done = seen[0]
    expected = distributions.Categorical(logits=LOGITS).log_prob(ROLLOUT.action) - ROLLOUT.log_prob
    torch.testing.assert_close(log_rho, expected)
    assert not log_rho.requires_grad
    assert discount[:, 0].tolist() == [0.5, 0, 0.5]
    assert done[:, 0].tolist() == [0, 1, 1]


def test_on_policy_it_is_zero() -> None:
    parts = built(*SMALL, SHARED)
    rollout = parts.experience.next(parts.actor, parts.state.progress)
    again = parts.state.evaluate(parts.algorithm.log_prob, rollout.observation, rollout.action)
    assert torch.equal(again, rollout.log_prob)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_shared_encoder_is_acted_and_learned_through(algorithm: str) -> None:
    """Two heads on one torso: the same features reach both, and both losses reach the torso."""
    parts = built(f"algorithm={algorithm}", SHARED, "network.hidden=[8]")
    nets = parts.state.nets
    assert set(parts.state.modules) == set(parts.state.trained) == {"encoder", "actor", "critic"}
    assert sum(p.numel() for p in nets.actor.parameters()) == 8 * 2 + 2
    assert sum(p.numel() for p in nets.critic.parameters()) == 8 + 1
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    acted = parts.algorithm.act(parts.state.acting_nets(), x, None, torch.zeros(7, 2), None, explore=False).action
    assert torch.equal(acted, nets.actor(nets.encoder(x)).argmax(-1))
    with torch.no_grad():
        list(nets.encoder.parameters())[-1].add_(1.0)
        moved = nets.actor(nets.encoder(x)).log_softmax(-1)[:, 0]
    log_prob = parts.algorithm.log_prob(nets, x, torch.zeros(7, dtype=torch.int64))
    torch.testing.assert_close(log_prob.detach(), moved)
    rollout = parts.experience.next(parts.actor, parts.state.progress)
    batch = rollout if algorithm == "a2c" else parts.state.evaluate(parts.algorithm.estimate, rollout)[0]
    more = () if algorithm == "a2c" else (0.2,)
    encoder = list(nets.encoder.parameters())

    def gradient() -> torch.Tensor:
        loss = parts.algorithm.loss(nets, batch, *more)[0]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, encoder)])

    whole = gradient()
    for head in ("actor", "critic"):
        layer = next(m for m in getattr(nets, head).modules() if isinstance(m, torch.nn.Linear))
        kept = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.zero_()  # what does not depend on the features sends them no gradient
        assert not torch.allclose(gradient(), whole)
        with torch.no_grad():
            layer.weight.copy_(kept)
