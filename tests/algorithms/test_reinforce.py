"""One update of REINFORCE: who changes, what is reported, what the loss is, what padding and truncation do."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributions

from rlexp.algorithms.reinforce import REINFORCE
from rlexp.functional.baselines import baseline as declares
from rlexp.functional.baselines import value as value_baseline
from rlexp.functional.distributions import Categorical
from rlexp.types import Transition
from tests.algorithms.runs import built

SMALL = ("algorithm=reinforce", "network.hidden=[8]", "experience.num_episodes=6", "experience.num_envs=3")
METRICS = {"loss/actor", "policy/entropy", "optimizer/grad_norm_actor"}
OF_THE_CRITIC = {
    "loss/critic", "value/mean", "value/target", "value/td_error", "value/explained_variance",
    "optimizer/grad_norm_critic",
}  # fmt: skip


def updated(*words: str, turns: int = 1):
    parts = built(*SMALL, *words)
    for _ in range(turns):
        episodes = parts.experience.next(parts.actor, parts.state.progress)
        before = parts.state.weights()
        metrics = parts.algorithm.update(parts.state, episodes, parts.state.progress).metrics
    after = parts.state.weights()
    return parts, metrics, {name for name in after if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("baseline", ["none", "value"])
@pytest.mark.parametrize("name", ["cartpole", "pendulum", "frozen_lake"])
def test_contract(name: str, baseline: str) -> None:
    parts, metrics, changed = updated(f"env={name}", f"baseline={baseline}", "env.time_limit=30", turns=4)
    critic = baseline == "value"
    assert set(parts.state.modules) == {"actor", *(["critic"] if critic else [])}
    # Without a baseline, episodes of a lake without a reward teach nothing.
    assert changed <= set(parts.state.modules)
    assert changed or name == "frozen_lake"
    assert set(metrics) == METRICS | (OF_THE_CRITIC if critic else set())
    for value in metrics.values():
        assert value.shape == ()
        assert torch.isfinite(value)
        assert not value.requires_grad
    assert parts.state.progress.updates == 4


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    weights = [updated("env=cartpole", f"seed={seed}")[0].state.weights() for seed in (0, 0, 1)]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


def table(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Two episodes, [T, N]: one of three steps that terminates, one of two that is truncated, and padding.
EPISODES = Transition(
    observation=table([1, 4], [2, 5], [3, 90]).unsqueeze(-1), action=torch.tensor([[0, 1], [2, 0], [1, 2]]),
    reward=table([1, 8], [2, 4], [4, 70]), terminated=table([0, 0], [0, 0], [1, 0]),
    truncated=table([0, 0], [0, 1], [0, 0]), next_observation=table([2, 5], [3, 6], [80, 90]).unsqueeze(-1),
    time=torch.tensor([[0, 0], [1, 1], [2, 0]]), valid=table([1, 1], [1, 1], [1, 0]),
)  # fmt: skip
LOGITS = torch.randn(3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALUE = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0, 6: 6.0}
# By hand with gamma = 0.5: 1 + 0.5 (2 + 0.5 x 4), 2 + 0.5 x 4, 4; 8 + 0.5 G, 4 + 0.5 V(6) or 4 where there is no V.
RETURNS = {"none": {(0, 0): 3, (1, 0): 4, (2, 0): 4, (0, 1): 10, (1, 1): 4}}
RETURNS["value"] = {**RETURNS["none"], (0, 1): 11.5, (1, 1): 7}


RETURNS["forgetful"] = RETURNS["value"]


@declares(uses_value=True)
def forgetful(returns, value, time, valid) -> torch.Tensor:
    """A baseline of one's own that hands back what it was given; it must not carry a gradient."""
    return value


BASELINES = {"none": None, "value": value_baseline, "forgetful": forgetful}


def make(baseline: str) -> REINFORCE:
    return REINFORCE(Categorical(3), BASELINES[baseline], gamma=0.5, entropy_coef=0.3)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_loss_and_its_gradient_are_the_equation(baseline: str) -> None:
    logits, slope = LOGITS.clone().requires_grad_(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    nets = SimpleNamespace(actor=lambda observation: logits)
    if baseline != "none":
        nets.critic = lambda observation: slope * observation[..., 0]
    loss, metrics = make(baseline).loss(nets, EPISODES)
    policy = distributions.Categorical(logits=LOGITS)
    log_prob, entropy = policy.log_prob(EPISODES.action), policy.entropy()
    returns = RETURNS[baseline]
    v = {(t, n): VALUE[int(EPISODES.observation[t, n])] if baseline != "none" else 0.0 for t, n in returns}
    actor = -sum(float(log_prob[place]) * (returns[place] - v[place]) for place in returns) / 2
    bonus = 0.3 * sum(float(entropy[place]) for place in returns) / 2
    critic = sum((v[place] - returns[place]) ** 2 for place in returns) / 10 if baseline != "none" else 0.0
    assert loss.item() == pytest.approx(actor - bonus + critic)
    assert metrics["loss/actor"].item() == pytest.approx(actor)
    assert metrics["policy/entropy"].item() == pytest.approx(sum(float(entropy[place]) for place in returns) / 5)
    (of_logits,) = torch.autograd.grad(loss, logits, retain_graph=True)
    indicator = torch.nn.functional.one_hot(EPISODES.action, 3)
    of_entropy = -policy.probs * (policy.logits + entropy.unsqueeze(-1))
    expected = torch.zeros_like(LOGITS)
    for place in returns:
        score = (indicator - policy.probs)[place] * (returns[place] - v[place])
        expected[place] = -(score + 0.3 * of_entropy[place]) / 2
    torch.testing.assert_close(of_logits, expected)  # nothing from the padding
    if baseline != "none":
        assert metrics["loss/critic"].item() == pytest.approx(critic)
        assert metrics["value/mean"].item() == pytest.approx(3)
        assert metrics["value/target"].item() == pytest.approx((3 + 4 + 4 + 11.5 + 7) / 5)
        errors = [1 + 1 - 1, 2 + 1.5 - 2, 4 - 3, 8 + 2.5 - 4, 4 + 3 - 5]
        assert metrics["value/td_error"].item() == pytest.approx(sum(errors) / 5)
        residual, target = torch.tensor([2.0, 2, 1, 7.5, 2]), torch.tensor([3.0, 4, 4, 11.5, 7])
        explained = 1 - residual.var(unbiased=False) / target.var(unbiased=False)
        assert metrics["value/explained_variance"].item() == pytest.approx(explained.item())
        # Of the critic's loss alone: the returns are constants, bootstrap included.
        (of_slope,) = torch.autograd.grad(loss, slope)
        assert of_slope.item() == pytest.approx(sum((v[p] - returns[p]) * v[p] for p in returns) / 5)


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_what_the_padding_holds_does_not_matter(baseline: str) -> None:
    """Two thirds of a batch may be padding: weights after an update are the same whatever stands there."""
    after = []
    for filling in (0, 5):
        parts = built(*SMALL, f"baseline={baseline}")
        episodes = parts.experience.next(parts.actor, parts.state.progress)
        filled = {
            name: torch.where(
                (episodes.valid > 0).view(*episodes.valid.shape, *[1] * (x.dim() - 2)), x, torch.full_like(x, filling)
            )
            for name, x in episodes._asdict().items()
            if name in ("observation", "next_observation", "reward")
        }
        parts.algorithm.update(parts.state, episodes._replace(**filled), parts.state.progress)
        after.append(parts.state.weights())
    for name, weights in after[0].items():
        torch.testing.assert_close(after[1][name], weights, rtol=1e-5, atol=1e-6)
