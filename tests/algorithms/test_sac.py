"""One update of SAC: who changes, what is reported, what the losses are, that it maps over seeds."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlexp.algorithms.sac import SAC
from rlexp.functional.distributions import SquashedGaussian
from rlexp.networks.heads import policy_network, twin_critic
from rlexp.networks.layers import PositiveScalar, initialise
from rlexp.networks.torso import MLP
from rlexp.types import Box, EnvSpec, Progress, Transition
from tests.algorithms.runs import built
from tests.algorithms.test_dqn import updates

SMALL = (
    "algorithm=sac", "env=pendulum", "network.hidden=[8]", "experience.learning_starts=20", "experience.batch_size=8",
    "algorithm.tau=0.25",
)  # fmt: skip
METRICS = {
    "loss/actor", "loss/critic", "loss/temperature", "policy/entropy", "policy/temperature", "value/max_q",
    "value/mean", "value/target", "value/td_error", "optimizer/grad_norm_actor", "optimizer/grad_norm_critic",
    "optimizer/grad_norm_temperature",
}  # fmt: skip


def test_contract() -> None:
    parts = built(*SMALL)
    assert torch.equal(parts.state.weights()["critic"], parts.state.weights()["target_critic"])
    for k, (before, after, metrics) in enumerate(updates(parts, 4), start=1):
        assert not any(torch.equal(after[name], before[name]) for name in after)
        averaged = 0.25 * after["critic"] + 0.75 * before["target_critic"]
        torch.testing.assert_close(after["target_critic"], averaged, rtol=1e-6, atol=1e-7)
        assert set(metrics) == METRICS
        assert all(torch.isfinite(x) and x.shape == () and not x.requires_grad for x in metrics.values())
        assert parts.state.progress.updates == 3 * k  # one step for each network


@pytest.mark.parametrize("name", ["actor", "critic", "temperature"])
def test_each_network_has_an_optimizer_of_its_own(name: str) -> None:
    parts = built(*SMALL, f"optimizer.networks.{name}.learning_rate=1e-30")
    for before, after, _ in updates(parts, 2):
        unchanged = {key for key in before if (after[key] - before[key]).abs().max() < 1e-20}
        assert unchanged - {"target_critic"} == {name}


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    weights = [list(updates(built(*SMALL, f"seed={seed}"), 3))[-1][1] for seed in (0, 0, 1)]
    for name in ("actor", "critic"):
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


# --------------------------------------------------------------------------------------------- the losses, by hand

POLICY = SquashedGaussian(1, -2.0, 2.0)
MEAN, LOG_STD = 0.4, -0.7


def make(**changes) -> SAC:
    given = {"gamma": 0.5, "tau": 0.005, "target_entropy": -1.0, "initial_temperature": 1.0, **changes}
    return SAC(POLICY, **given)


def nets(slope: float = 1.0, temperature: float = 0.25) -> SimpleNamespace:
    """An actor of one policy for all states; critics slope a + o and 2 a + o, targets a and 3 a."""
    log_temperature = torch.tensor(math.log(temperature), requires_grad=True)
    parameters = torch.tensor([MEAN, LOG_STD], requires_grad=True)
    weight = torch.tensor([slope, 2.0], requires_grad=True)
    target_weight = torch.tensor([1.0, 3.0], requires_grad=True)
    return SimpleNamespace(
        actor=lambda o: parameters.expand(*o.shape[:-1], 2),
        critic=lambda o, a: torch.stack([w * a[..., 0] + o[..., 0] for w in weight]),
        target_critic=lambda o, a: torch.stack([w * a[..., 0] for w in target_weight]),
        temperature=lambda: log_temperature.exp(),
        leaves=(parameters, weight, target_weight, log_temperature),
    )


def draw(epsilon: float) -> tuple[float, float]:
    """The action and its log probability, from the definition."""
    u = MEAN + math.exp(LOG_STD) * epsilon
    log_normal = -0.5 * epsilon**2 - LOG_STD - 0.5 * math.log(2 * math.pi)
    return 2 * math.tanh(u), log_normal - math.log(2) - math.log(1 - math.tanh(u) ** 2)


def test_critic_loss_is_the_equation() -> None:
    """One transition goes on, one terminated, one was truncated: [T, B] = [1, 3]."""
    column = torch.tensor([[[1.0], [2.0], [3.0]]])
    zeros = torch.zeros(1, 3)
    batch = Transition(
        observation=column, action=torch.tensor([[[1.0], [-1.0], [0.5]]]), reward=torch.tensor([[1.0, 2.0, 3.0]]),
        terminated=torch.tensor([[0.0, 1.0, 0.0]]), truncated=torch.tensor([[0.0, 0.0, 1.0]]),
        next_observation=column, time=zeros.long(),
    )  # fmt: skip
    epsilon = (0.3, -1.0, -2.5)  # the third action is negative: there the other critic is the smaller
    targets = []
    for reward, going_on, e in zip((1.0, 2.0, 3.0), (1, 0, 1), epsilon, strict=True):
        action, log_prob = draw(e)
        targets.append(reward + 0.5 * going_on * (min(action, 3 * action) - 0.25 * log_prob))
    q_values = [[1 + 1, -1 + 2, 0.5 + 3], [2 + 1, -2 + 2, 1 + 3]]
    errors = [y - q for q_of_one in q_values for y, q in zip(targets, q_of_one, strict=True)]
    made = nets()
    loss, metrics = make().critic_loss(made, batch, torch.tensor(epsilon).view(1, 3, 1))
    assert loss.item() == pytest.approx(sum(e * e for e in errors) / 6, rel=1e-5)  # half, mean over 3, sum over 2
    assert metrics["value/target"].item() == pytest.approx(sum(targets) / 3, rel=1e-5)
    assert metrics["value/mean"].item() == pytest.approx(13.5 / 6)
    assert metrics["value/max_q"].item() == 4
    assert metrics["value/td_error"].item() == pytest.approx(sum(map(abs, errors)) / 6, rel=1e-5)
    gradients = torch.autograd.grad(loss, made.leaves, allow_unused=True)
    assert [gradient is None for gradient in gradients] == [True, False, True, True]


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_actor_loss_is_the_equation_and_its_gradient_goes_through_the_action(slope: float) -> None:
    """alpha log pi(a|s) - min(slope a + o, 2 a + o) at one draw; by finite differences in mean and log std."""
    made, epsilon, observation = nets(slope), 0.3, 1.5
    noise = torch.tensor([[[epsilon]]])
    loss, metrics = make().actor_loss(made, torch.tensor([[[observation]]]), noise)

    def by_hand(mean: float, log_std: float) -> float:
        u = mean + math.exp(log_std) * epsilon
        log_normal = -0.5 * epsilon**2 - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = log_normal - math.log(2) - math.log(1 - math.tanh(u) ** 2)
        action = 2 * math.tanh(u)
        return 0.25 * log_prob - min(slope * action + observation, 2 * action + observation)

    assert loss.item() == pytest.approx(by_hand(MEAN, LOG_STD), rel=1e-5)
    assert metrics["policy/entropy"].item() == pytest.approx(-draw(epsilon)[1], rel=1e-5)
    assert metrics["policy/temperature"].item() == pytest.approx(0.25)
    gradient, *_, of_temperature = torch.autograd.grad(loss, made.leaves, allow_unused=True)
    step = 1e-5
    expected = [
        (by_hand(MEAN + step, LOG_STD) - by_hand(MEAN - step, LOG_STD)) / (2 * step),
        (by_hand(MEAN, LOG_STD + step) - by_hand(MEAN, LOG_STD - step)) / (2 * step),
    ]
    assert gradient.tolist() == pytest.approx(expected, rel=1e-4)
    assert of_temperature is None


def test_temperature_follows_the_entropy_of_the_scaled_action() -> None:
    """Bounds of +-2 add log 2 nats; target -1 for the action in [-1, 1] is -1 + log 2 here."""
    made = nets(temperature=0.25)
    loss, _ = make().temperature_loss(made, torch.tensor(-0.5))
    assert loss.item() == pytest.approx(0.25 * (-0.5 + 1 - math.log(2)), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, made.leaves[3])
    assert slope.item() == pytest.approx(loss.item(), rel=1e-5)  # of the logarithm


def test_acting() -> None:
    """Deterministic is c + h tanh(mean) whatever the noise; exploring is the reparameterised draw."""
    observation, noise, progress = torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [-2.0]]), Progress(0, 0, 10)
    act = make().act
    assert (
        act(nets(), observation, None, noise, progress, explore=False).action.tolist()
        == [[pytest.approx(2 * math.tanh(MEAN))]] * 3
    )
    explored = act(nets(), observation, None, noise, progress, explore=True).action
    assert explored.flatten().tolist() == pytest.approx([draw(e)[0] for e in (0.0, 1.0, -2.0)], rel=1e-5)


# ------------------------------------------------------------------------------------------------- several seeds


def test_losses_and_gradients_are_mapped_over_seeds() -> None:
    """What torch.func.vmap makes of stacked parameters is what each seed's networks give alone."""
    spec = EnvSpec("test", Box((3,)), Box((1,), -2.0, 2.0), 10, False)
    encoder, algorithm = MLP(hidden=[8], activation="relu", layer_norm=False), make()
    alone = [_networks(spec, encoder, seed) for seed in range(3)]
    generator = torch.Generator().manual_seed(0)
    batch = Transition(
        observation=torch.randn(3, 1, 6, 3, generator=generator), action=torch.rand(3, 1, 6, 1, generator=generator),
        reward=torch.randn(3, 1, 6, generator=generator), terminated=torch.zeros(3, 1, 6),
        truncated=torch.zeros(3, 1, 6), next_observation=torch.randn(3, 1, 6, 3, generator=generator),
        time=torch.zeros(3, 1, 6).long(), log_prob=torch.zeros(3, 1, 6), valid=torch.ones(3, 1, 6),
    )  # fmt: skip
    noise = torch.randn(3, 1, 6, 1, generator=generator)
    losses = {
        "critic": lambda nets, batch, noise: algorithm.critic_loss(nets, batch, noise),
        "actor": lambda nets, batch, noise: algorithm.actor_loss(nets, batch.observation, noise),
        "temperature": lambda nets, batch, noise: algorithm.temperature_loss(nets, noise.mean()),
    }
    stacked = {name: torch.func.stack_module_state([nets[name] for nets in alone])[0] for name in alone[0]}
    for name, loss in losses.items():

        def of_stacked(own, others, batch, noise, name=name, loss=loss):
            parameters = {**others, name: own}
            called = {key: _Call(alone[0][key], parameters[key]) for key in parameters}
            return loss(SimpleNamespace(**called), batch, noise)

        mapped = torch.func.vmap(torch.func.grad(of_stacked, has_aux=True))
        gradients, metrics = mapped(stacked[name], stacked, batch, noise)
        for s, nets_alone in enumerate(alone):
            one = Transition(*(column[s] for column in batch))
            value, expected = loss(SimpleNamespace(**nets_alone), one, noise[s])
            leaves = dict(nets_alone[name].named_parameters())
            for leaf, gradient in zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True):
                torch.testing.assert_close(gradients[leaf][s], gradient, rtol=1e-4, atol=1e-5)
            for key in expected:
                torch.testing.assert_close(metrics[key][s], expected[key], rtol=1e-4, atol=1e-5)


def _networks(spec: EnvSpec, encoder: MLP, seed: int) -> dict[str, nn.Module]:
    networks: dict[str, nn.Module] = {
        "actor": policy_network(spec, encoder, POLICY),
        "critic": twin_critic(spec, encoder),
        "target_critic": twin_critic(spec, encoder),
        "temperature": PositiveScalar(0.5 + seed),
    }
    for index, module in enumerate(networks.values()):
        initialise(module, torch.Generator().manual_seed(10 * seed + index))
    return networks


class _Call:
    def __init__(self, module: nn.Module, parameters) -> None:
        self.module, self.parameters = module, parameters

    def __call__(self, *x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(self.module, self.parameters, x)
