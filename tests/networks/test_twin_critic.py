"""Networks of actor-critics with replay: two critics of observation and action, and a positive scalar."""

import math

import pytest
import torch

from rlexp.networks.heads import twin_critic
from rlexp.networks.layers import PositiveScalar, initialise
from rlexp.networks.torso import MLP, LinearFeatures
from rlexp.types import Box, Discrete, EnvSpec

MLP_8 = MLP(hidden=[8, 8], activation="relu", layer_norm=False)
VECTOR = Box((3,))


def make(seed: int, observation=VECTOR, encoder=MLP_8):
    critic = twin_critic(EnvSpec("test", observation, Box((2,), -1.0, 1.0), 10, False), encoder)
    initialise(critic, torch.Generator().manual_seed(seed))
    return critic


def inputs(observation) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    action = torch.rand(5, 4, 2, generator=generator)
    if isinstance(observation, Discrete):
        return torch.randint(observation.n, (5, 4), generator=generator), action
    return torch.randn(5, 4, 3, generator=generator), action


@pytest.mark.parametrize("encoder", [MLP_8, LinearFeatures()], ids=["mlp", "linear"])
@pytest.mark.parametrize("observation", [Box((3,)), Discrete(6)], ids=["vector", "integer"])
def test_two_values_of_observation_and_action(observation, encoder) -> None:
    critic, (x, action) = make(0, observation, encoder), inputs(observation)
    q_value = critic(x, action)
    assert q_value.shape == (2, 5, 4)
    assert not torch.allclose(q_value[0], q_value[1])  # drawn one after the other
    other = critic(x, action + 0.5)
    assert not torch.isclose(other, q_value).all(-1).any()
    # Rows do not mix.
    torch.testing.assert_close(critic(x[2:3], action[2:3]), q_value[:, 2:3])


def test_members_share_nothing() -> None:
    critic, (x, action) = make(0), inputs(VECTOR)
    q_value = critic(x, action)
    first = list(critic.module.members[0].parameters())
    second = list(critic.module.members[1].parameters())
    assert len(first) == len(second) == 6
    gradients = torch.autograd.grad(q_value[0].sum(), first + second)
    assert all(gradient.any() for gradient in gradients[:6])
    assert not any(gradient.any() for gradient in gradients[6:])


def test_is_mapped_over_seeds() -> None:
    critics, (x, action) = [make(seed) for seed in range(3)], inputs(VECTOR)
    parameters, buffers = torch.func.stack_module_state(critics)

    def call(parameters, buffers):
        return torch.func.functional_call(critics[0], (parameters, buffers), (x, action))

    mapped = torch.func.vmap(call)(parameters, buffers)
    for s, critic in enumerate(critics):
        torch.testing.assert_close(mapped[s], critic(x, action), rtol=1e-5, atol=1e-6)


def test_positive_scalar() -> None:
    scalar = PositiveScalar(0.2)
    initialise(scalar, torch.Generator())
    assert scalar().item() == pytest.approx(0.2)
    assert scalar().shape == ()
    with torch.no_grad():
        scalar.log -= math.log(2)
    assert scalar().item() == pytest.approx(0.1)
