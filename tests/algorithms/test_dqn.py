"""One update of DQN: who changes, what is reported, what the loss is, when the target network moves."""

import functools
from types import SimpleNamespace

import pytest
import torch

from rlexp.algorithms.dqn import DQN
from rlexp.functional.advantages import gae, monte_carlo, n_step, one_step_td, td_lambda
from rlexp.functional.exploration import EpsilonGreedy
from rlexp.functional.schedules import constant
from rlexp.types import Progress, Transition
from tests.algorithms.runs import built

SMALL = (
    "algorithm=dqn", "env=cartpole", "network.hidden=[8]", "experience.learning_starts=20", "experience.batch_size=8",
    "algorithm.target_update_interval=3",
)  # fmt: skip
METRICS = {"loss/q", "value/max_q", "value/mean", "value/target", "value/td_error", "optimizer/grad_norm_q"}


def updates(parts, count: int):
    """Weights before and after each of so many updates, and its metrics."""
    while count:
        batch = parts.experience.next(parts.actor, parts.state.progress)
        parts.state.progress = parts.state.progress._replace(env_steps=parts.experience.env_steps)
        if batch is None:
            continue
        before = parts.state.weights()
        metrics = parts.algorithm.update(parts.state, batch, parts.state.progress).metrics
        yield before, parts.state.weights(), metrics
        count -= 1


def test_contract_and_the_target_network_copies_at_its_interval() -> None:
    parts = built(*SMALL)
    for k, (before, after, metrics) in enumerate(updates(parts, 7), start=1):
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == ({"q", "target_q"} if k % 3 == 0 else {"q"})
        assert torch.equal(after["q"], after["target_q"]) == (k % 3 == 0)
        assert set(metrics) == METRICS
        assert all(
            torch.isfinite(value) and value.shape == () and not value.requires_grad for value in metrics.values()
        )
        assert parts.state.progress.updates == k


def test_a_small_tau_averages() -> None:
    parts = built(*SMALL, "algorithm.tau=0.25", "algorithm.target_update_interval=1")
    for before, after, _ in updates(parts, 3):
        expected = 0.25 * after["q"] + 0.75 * before["target_q"]
        torch.testing.assert_close(after["target_q"], expected, rtol=1e-6, atol=1e-7)


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    weights = [list(updates(built(*SMALL, f"seed={seed}"), 4))[-1][1] for seed in (0, 0, 1)]
    assert torch.equal(weights[0]["q"], weights[1]["q"])
    assert not torch.equal(weights[0]["q"], weights[2]["q"])


def make(epsilon: float = 0.1, huber_delta: float = 1.0, estimator=one_step_td) -> DQN:
    exploration = EpsilonGreedy(epsilon=functools.partial(constant, value=epsilon))
    return DQN(exploration, estimator, gamma=0.5, tau=1.0, target_update_interval=1, huber_delta=huber_delta)


def row(*numbers: float, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor([numbers], dtype=dtype)


Q = torch.tensor([[1.0, 3.0], [2.0, 0.0], [5.0, 4.0]], requires_grad=True)
TARGET_Q = torch.tensor([[0.0, 0.0], [6.0, 8.0], [-4.0, -2.0]], requires_grad=True)
NETS = SimpleNamespace(q=lambda index: Q[index], target_q=lambda index: TARGET_Q[index])
BATCH = Transition(
    observation=row(0, 1, 2, dtype=torch.int64), action=row(1, 0, 1, dtype=torch.int64), reward=row(1, 2, 3),
    terminated=row(0, 1, 0), truncated=row(0, 0, 1), next_observation=row(1, 1, 2, dtype=torch.int64),
    time=row(0, 0, 0, dtype=torch.int64),
)  # fmt: skip


def test_the_loss_is_the_equation() -> None:
    """By hand.

    Targets 1 + 0.5 x 8 = 5, 2 (terminated), 3 + 0.5 x -2 = 2 (truncated); errors 2, 0, -2; Huber losses 1.5, 0, 1.5.
    """
    loss, metrics = make().loss(NETS, BATCH)
    assert loss.item() == 1
    assert metrics["value/target"].item() == 3
    assert metrics["value/td_error"].item() == pytest.approx(4 / 3)
    assert metrics["value/mean"].item() == 3
    assert metrics["value/max_q"].item() == 5
    assert make(huber_delta=4.0).loss(NETS, BATCH)[0].item() == pytest.approx(4 / 3)  # e^2 / 2 throughout


# Sequences of three steps, [T, B]: one goes on, one terminates at its second step, one is truncated at its first.
SEQUENCES = Transition(
    observation=torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), action=torch.tensor([[1, 1, 1], [0, 0, 0], [1, 1, 1]]),
    reward=torch.tensor([[1.0, 1, 1], [2, 2, 2], [4, 4, 4]]),
    terminated=torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    truncated=torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]]),
    next_observation=torch.tensor([[1, 1, 1], [2, 2, 2], [1, 1, 1]]), time=torch.zeros(3, 3, dtype=torch.int64),
)  # fmt: skip
ONE = [1 + 0.5 * 8] * 3
TWO = [1 + 0.5 * 2 + 0.25 * -2, 1 + 0.5 * 2, 1 + 0.5 * 8]
THREE = [1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 8, 1 + 0.5 * 2, 1 + 0.5 * 8]
HALF = [
    0.5 * ONE[0] + 0.25 * TWO[0] + 0.25 * THREE[0],
    0.5 * ONE[1] + 0.5 * TWO[1],
    ONE[2],
]  # weights of the lambda-return


@pytest.mark.parametrize(
    ("estimator", "targets"),
    [
        (one_step_td, ONE),
        (functools.partial(n_step, n_step=2), TWO),
        (functools.partial(n_step, n_step=3), THREE),
        (monte_carlo, THREE),
        (functools.partial(td_lambda, lambda_=0.5), HALF),
        (functools.partial(gae, lambda_=0.5), HALF),
    ],
    ids=["one step", "2 steps", "3 steps", "monte carlo", "td lambda", "gae"],
)
def test_targets_of_a_sequence(estimator, targets: list[float]) -> None:
    """By hand: only the first step's Q is moved, towards the estimator's return of the sequence."""
    for b, target in enumerate(targets):
        one = Transition(*(None if x is None else x[:, b : b + 1] for x in SEQUENCES))
        loss, metrics = make(huber_delta=100.0, estimator=estimator).loss(NETS, one)
        assert metrics["value/target"].item() == pytest.approx(target)
        assert metrics["value/mean"].item() == 3
        assert metrics["value/td_error"].item() == pytest.approx(abs(ONE[b] - 3))
        assert loss.item() == pytest.approx((target - 3) ** 2 / 2)
        (gradient,) = torch.autograd.grad(loss, Q)
        torch.testing.assert_close(gradient, torch.tensor([[0, 3 - target], [0, 0], [0, 0]]))


def test_n_steps_from_the_command_line() -> None:
    parts = built(*SMALL, "estimator=n_step", "estimator.n_step=3", "experience.sequence_length=3")
    for _, _, metrics in updates(parts, 2):
        assert set(metrics) == METRICS


def test_the_gradient_is_of_the_actions_taken_and_not_of_the_target() -> None:
    loss, _ = make().loss(NETS, BATCH)
    gradient, of_target = torch.autograd.grad(loss, (Q, TARGET_Q), allow_unused=True)
    torch.testing.assert_close(gradient, torch.tensor([[0, -1 / 3], [0, 0], [0, 1 / 3]]))
    assert of_target is None


def test_acting() -> None:
    """Greedy without exploration whatever the noise; with it as the exploration says."""
    observation, noise = torch.tensor([0, 1, 2]), torch.tensor([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]])
    progress = Progress(0, 0, 10)
    assert make(1.0).act(NETS, observation, None, noise, progress, explore=False).action.tolist() == [1, 0, 0]
    assert make(0.4).act(NETS, observation, None, noise, progress, explore=True).action.tolist() == [1, 0, 0]
    assert make(0.6).act(NETS, observation, None, noise, progress, explore=True).action.tolist() == [1, 1, 1]
