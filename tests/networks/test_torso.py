"""Torsos and heads: shapes, widths, which observations they take."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlexp.functional.distributions import Categorical, DiagonalGaussian, family_of
from rlexp.networks.heads import actor_critic, encoded, policy_network, q_network, value_network
from rlexp.networks.layers import LayerNorm, Linear, OneHot, initialise
from rlexp.networks.torso import MLP, LinearFeatures, Tabular, observation_kind
from rlexp.types import Box, Discrete
from tests.conftest import env_spec


@pytest.mark.parametrize(
    ("observation", "kind"),
    [
        (Discrete(3), "discrete"),
        (Box((4,)), "vector"),
        (Box((8, 8, 3)), "image"),
        (Box((2, 2)), "tensor"),
        (Box(()), "tensor"),
    ],
)
def test_observation_kind(observation, kind: str) -> None:
    assert observation_kind(observation) == kind


@pytest.mark.parametrize("hidden", [[], [7], [7, 5]])
def test_mlp_has_the_layers_it_is_told(hidden) -> None:
    torso, width = MLP(hidden=hidden, activation="relu", layer_norm=False)(Box((4,)))
    linear = [layer for layer in torso.modules() if isinstance(layer, Linear)]
    assert [layer.out_features for layer in linear] == hidden
    assert sum(isinstance(layer, nn.ReLU) for layer in torso.modules()) == len(hidden)
    assert width == (hidden or [4])[-1]
    assert torso(torch.zeros(3, 2, 4)).shape == (3, 2, width)


@pytest.mark.parametrize(("activation", "layer"), [("tanh", nn.Tanh), ("relu", nn.ReLU), ("elu", nn.ELU)])
def test_mlp_activation(activation, layer) -> None:
    torso, _ = MLP(hidden=[3], activation=activation, layer_norm=False)(Box((4,)))
    assert any(type(module) is layer for module in torso.modules())


def test_layer_norm_comes_before_each_activation_and_bounds_the_features() -> None:
    torso, _ = MLP(hidden=[8, 4], activation="relu", layer_norm=True)(Box((3,)))
    kinds = [type(layer) for layer in torso if type(layer) is not nn.Identity]
    assert kinds == [Linear, LayerNorm, nn.ReLU, Linear, LayerNorm, nn.ReLU]
    initialise(torso, torch.Generator().manual_seed(0))
    assert torso(1e6 * torch.randn(64, 3)).norm(dim=-1).max() <= 4**0.5 + 1e-4


def test_layer_norm_by_hand() -> None:
    # Mean 2, variance 2 / 3 of (1, 2, 3); each row for itself.
    side = (3 / 2) ** 0.5
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0]])
    torch.testing.assert_close(LayerNorm()(x), torch.tensor([[-side, 0, side], [-side, side, 0]]), rtol=2e-5, atol=0)


@pytest.mark.parametrize("encoder", [MLP(hidden=[6], activation="tanh", layer_norm=False), LinearFeatures(), Tabular()])
def test_discrete_observations_become_indicators(encoder) -> None:
    torso, width = encoder(Discrete(5))
    assert any(isinstance(module, OneHot) for module in torso.modules())
    assert torso(torch.tensor([[0, 4]])).shape == (1, 2, width)


def test_linear_features_of_a_vector_are_the_vector() -> None:
    torso, width = LinearFeatures()(Box((3,)))
    x = torch.randn(2, 3)
    assert width == 3
    assert torch.equal(torso(x), x)


def test_what_torsos_take() -> None:
    assert MLP.takes == LinearFeatures.takes == {"discrete", "vector"}
    assert Tabular.takes == {"discrete"}


ENCODER = MLP(hidden=[16], activation="tanh", layer_norm=False)


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "taxi"])
def test_heads_have_their_shapes(name: str) -> None:
    spec = env_spec(name)
    policy = family_of(spec.action)
    observation = torch.zeros(4, 2, *spec.observation.shape, dtype=torch.int64 if name == "taxi" else torch.float32)
    parameters = policy_network(spec, ENCODER, policy)(observation)
    assert parameters.shape[:2] == (4, 2)
    assert policy.entropy(parameters).shape == (4, 2)
    assert policy.mode(parameters).shape == (4, 2, *spec.action.shape)
    assert value_network(spec, ENCODER)(observation).shape == (4, 2)
    if isinstance(spec.action, Discrete):
        assert q_network(spec, ENCODER)(observation).shape == (4, 2, spec.action.n)


def test_the_first_policy_is_close_to_uniform_and_to_a_standard_normal() -> None:
    spec = env_spec("cartpole")
    network = policy_network(spec, ENCODER, Categorical(2))
    initialise(network, torch.Generator().manual_seed(0))
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    assert (network(x).softmax(-1) - 0.5).abs().max() < 0.02
    network = policy_network(env_spec("pendulum"), ENCODER, DiagonalGaussian(1))
    initialise(network, torch.Generator().manual_seed(0))
    mean, log_std = network(torch.randn(100, 3, generator=torch.Generator().manual_seed(1))).chunk(2, -1)
    assert mean.abs().max() < 0.05
    assert not log_std.any()


def test_two_networks_of_one_encoder_share_nothing() -> None:
    spec = env_spec("cartpole")
    one, other = q_network(spec, ENCODER), q_network(spec, ENCODER)
    assert not {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "taxi"])
def test_actor_and_critic_with_a_torso_each_or_one_for_both(name: str) -> None:
    spec = env_spec(name)
    policy = family_of(spec.action)
    observation = torch.zeros(4, 2, *spec.observation.shape, dtype=torch.int64 if name == "taxi" else torch.float32)
    for shared in (False, True):
        made = actor_critic(spec, ENCODER, policy, shared=shared)
        assert set(made) == {"actor", "critic"} | ({"encoder"} if shared else set())
        owned = [id(p) for module in made.values() for p in module.parameters()]
        assert len(owned) == len(set(owned))  # none in two networks
        nets = SimpleNamespace(**made)
        features = encoded(nets, observation, shared=shared)
        assert (features is observation) == (not shared)
        assert nets.actor(features).shape == (4, 2, policy.num_parameters() * (1 if name != "pendulum" else 2))
        assert nets.critic(features).shape == (4, 2)
