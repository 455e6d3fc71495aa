"""One update of PPO: who changes, what is reported, what the loss is, when the epochs stop."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import distributions

from rlexp.algorithms.ppo import PPO, Minibatch
from rlexp.functional.advantages import one_step_td
from rlexp.functional.distributions import Categorical
from rlexp.functional.schedules import constant
from rlexp.types import Transition
from tests.algorithms.runs import built

SMALL = ("algorithm=ppo", "experience.rollout_length=32", "experience.num_envs=4", "network.hidden=[8]")
METRICS = {
    "loss/actor", "loss/critic", "policy/entropy", "policy/approx_kl", "policy/clip_fraction", "policy/steps_taken",
    "value/mean", "value/target", "value/td_error", "value/explained_variance", "optimizer/grad_norm_actor",
    "optimizer/grad_norm_critic",
}  # fmt: skip


def updated(*words: str, turns: int = 1):
    parts = built(*SMALL, *words)
    for _ in range(turns):
        rollout = parts.experience.next(parts.actor, parts.state.progress)
        before = parts.state.weights()
        metrics = parts.algorithm.update(parts.state, rollout, parts.state.progress).metrics
    after = parts.state.weights()
    return parts, metrics, {name for name in after if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "frozen_lake"])
def test_contract(name: str) -> None:
    parts, metrics, changed = updated(f"env={name}", turns=2)
    assert changed == {"actor", "critic"} == set(parts.state.modules)
    assert set(metrics) == METRICS
    for value in metrics.values():
        assert value.shape == ()
        assert torch.isfinite(value)
        assert not value.requires_grad
    assert parts.state.progress.updates == 2 * 10 * 4  # rollouts x epochs x minibatches


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    weights = [updated("env=cartpole", f"seed={seed}")[0].state.weights() for seed in (0, 0, 1)]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


def test_the_first_step_is_on_policy() -> None:
    """The log-probabilities of the rollout are those of the policy that is updated: every ratio is one."""
    _, metrics, _ = updated("env=cartpole", "algorithm.num_epochs=1", "algorithm.num_minibatches=1")
    assert metrics["policy/clip_fraction"] == 0
    assert 0 <= metrics["policy/approx_kl"] < 1e-10
    assert abs(metrics["loss/actor"]) < 1e-6  # standardised advantages have mean zero


def test_the_epochs_stop_once_the_policy_has_moved() -> None:
    """A tiny bound is exceeded at the second minibatch: eight epochs more then change nothing."""
    many, few = (
        updated(
            "env=cartpole", f"algorithm.num_epochs={epochs}", "algorithm.num_minibatches=2", "algorithm.target_kl=1e-12"
        )
        for epochs in (9, 1)
    )
    unbounded, *_ = updated("env=cartpole", "algorithm.num_epochs=9", "algorithm.num_minibatches=2")
    for name in ("actor", "critic"):
        assert torch.equal(many[0].state.weights()[name], few[0].state.weights()[name])
        assert not torch.equal(many[0].state.weights()[name], unbounded.state.weights()[name])
    # Two of eighteen were taken; a row shows the mean of those two alone.
    assert many[1]["policy/steps_taken"] == pytest.approx(2 / 18)
    for name in ("loss/actor", "loss/critic", "policy/approx_kl", "optimizer/grad_norm_critic"):
        assert many[1][name].item() == pytest.approx(few[1][name].item(), rel=1e-6)


def make(**changes) -> PPO:
    fields = {
        "gamma": 0.5, "clip_ratio": functools.partial(constant, value=0.2), "value_coef": 0.7, "entropy_coef": 0.3,
        "num_epochs": 1, "num_minibatches": 1, "target_kl": None, "shared_encoder": False,
    }  # fmt: skip
    return PPO(Categorical(3), one_step_td, **{**fields, **changes})


def test_the_loss_is_the_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, old = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    value, target, advantage = (torch.randn(64, generator=generator, dtype=torch.float64) for _ in range(3))
    action = torch.randint(3, (64,), generator=generator)
    policy, behaviour = distributions.Categorical(logits=logits), distributions.Categorical(logits=old)
    nets = SimpleNamespace(actor=lambda observation: logits, critic=lambda observation: value)
    minibatch = Minibatch(torch.zeros(64, 1), action, behaviour.log_prob(action), advantage, target)
    loss, metrics = make().loss(nets, minibatch, 0.2)
    standardised = (advantage - advantage.mean()) / advantage.std(unbiased=False)
    total, outside = 0.0, 0
    for n in range(64):
        ratio = float((policy.log_prob(action)[n] - behaviour.log_prob(action)[n]).exp())
        clipped = min(max(ratio, 0.8), 1.2)
        total += min(ratio * float(standardised[n]), clipped * float(standardised[n]))
        outside += ratio != clipped
    critic = 0.5 * float(((value - target) ** 2).mean())
    entropy = float(policy.entropy().mean())
    assert metrics["loss/actor"].item() == pytest.approx(-total / 64, abs=1e-6)
    assert metrics["loss/critic"].item() == pytest.approx(critic)
    assert metrics["policy/entropy"].item() == pytest.approx(entropy)
    assert metrics["policy/clip_fraction"].item() == pytest.approx(outside / 64)
    assert loss.item() == pytest.approx(-total / 64 + 0.7 * critic - 0.3 * entropy, abs=1e-6)


def test_a_truncated_step_bootstraps_from_its_true_successor_and_a_terminated_one_does_not() -> None:
    def column(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float32).unsqueeze(-1)

    rollout = Transition(
        observation=column(1, 2, 3).unsqueeze(-1), action=torch.zeros(3, 1, dtype=torch.int64), reward=column(1, 1, 1),
        terminated=column(0, 1, 0), truncated=column(0, 0, 1), next_observation=column(2, 50, 8).unsqueeze(-1),
        time=torch.zeros(3, 1, dtype=torch.int64), log_prob=column(0, 0, 0),
    )  # fmt: skip
    nets = SimpleNamespace(critic=lambda observation: 10 * observation[..., 0])
    data, metrics = make().estimate(nets, rollout)
    assert data.value_target.tolist() == [11, 1, 41]  # 1 + 0.5 V(s'), 1, 1 + 0.5 V(s')
    assert data.advantage.tolist() == [1, -19, 11]
    assert data.observation.tolist() == [[1], [2], [3]]
    assert metrics["value/mean"].item() == 20
    assert metrics["value/target"].item() == pytest.approx(53 / 3)
    assert metrics["value/td_error"].item() == pytest.approx(31 / 3)
