"""Convolutions on images with channels last, and an agent that sees nothing else."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rlexp.networks.layers import Conv, Image, initialise
from rlexp.networks.torso import CNN
from rlexp.types import Box
from tests.algorithms.runs import built, trained

SMALL = CNN(channels=[4, 6], kernel_size=3, stride=2, hidden=[10])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_takes_images_alone() -> None:
    assert CNN.takes == {"image"}


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (1, 1, 2), (84, 84, 4)])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_size_and_any_leading_dims(shape, leading) -> None:
    torso, width = SMALL(Box(shape, 0.0, 255.0))
    initialise(torso, generator())
    x = 255 * torch.rand(*leading, *shape, generator=generator())
    y = torso(x)
    assert y.shape == (*leading, width) == (*leading, 10)
    if leading == (2, 3):
        torch.testing.assert_close(y[1, 2], torso(x[1, 2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_without_hidden_layers_the_features_are_the_last_channels(kernel_size, stride: int) -> None:
    torso, width = CNN(channels=[2, 3], kernel_size=kernel_size, stride=stride, hidden=[])(Box((7, 10, 2)))
    assert torso(torch.zeros(4, 7, 10, 2)).shape == (4, width)


def test_an_image_is_scaled_by_its_bounds_and_turned() -> None:
    x = torch.arange(12.0).view(1, 2, 3, 2)
    y = Image(0.0, 255.0)(x)
    assert y.shape == (1, 2, 2, 3)
    for row in range(2):
        for column in range(3):
            for channel in range(2):
                assert y[0, channel, row, column].item() == pytest.approx(x[0, row, column, channel].item() / 255)
    torch.testing.assert_close(Image(-1.0, 3.0)(torch.tensor([[[3.0]]])), torch.ones(1, 1, 1))
    assert torch.equal(Image(0.0, float("inf"))(x), x.movedim(-1, -3))
    assert Image(0.0, 255.0)(torch.full((1, 1, 1), 255, dtype=torch.uint8)).item() == pytest.approx(1)


def test_a_convolution_by_hand() -> None:
    """Kernel 3 padded by one, stride 1: the sum of a pixel's neighbourhood where every weight is one."""
    layer = Conv(1, 1, 3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.5)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert layer(x).tolist() == [[[[10.5, 10.5], [10.5, 10.5]]]]
    x = torch.tensor([[[[1.0, 0, 0, 2.0]]]])
    assert layer(x).tolist() == [[[[1.5, 1.5, 2.5, 2.5]]]]


def test_weights_come_from_the_generator_and_are_orthogonal() -> None:
    before = torch.get_rng_state()
    made = []
    for seed in (0, 0, 1):
        layer = Conv(3, 5, 3, 2)
        initialise(layer, generator(seed))
        made.append(layer.weight.detach().clone())
        assert not layer.bias.any()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    rows = made[0].flatten(1) / 2**0.5
    torch.testing.assert_close(rows @ rows.T, torch.eye(5), rtol=0, atol=1e-5)


class Lamp(gymnasium.Env[np.ndarray, int]):
    """One byte of an image shines, left or right; the action that names its side is worth 1, the other -1."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 6, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.right = int(self.np_random.integers(2))
        image = np.zeros((4, 6, 1), np.uint8)
        image[self.np_random.integers(4), 3 * self.right + self.np_random.integers(3)] = 255
        return image, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros((4, 6, 1), np.uint8), 1.0 if action == self.right else -1.0, True, False, {}


gymnasium.register("rlexp-tests/Lamp-v0", entry_point=Lamp)
LAMP = (
    "env.id=rlexp-tests/Lamp-v0",
    "env.declared={of: rlexp-tests/Lamp-v0, observation: {kind: box, shape: [4, 6, 1], low: 0.0, high: 255.0}, "
    "action: {kind: discrete, n: 2}, time_limit: 5, has_model: false}",
    "network=cnn", "network.channels=[8]", "network.hidden=[16]",
)  # fmt: skip


LEARNERS = {
    "a2c": ("algorithm=a2c", "total_env_steps=6400", "experience.num_envs=32", "optimizer.learning_rate=1e-2"),
    "ppo, shared encoder": (
        "algorithm=ppo", "algorithm.shared_encoder=true", "total_env_steps=2400", "experience.rollout_length=25",
        "optimizer.learning_rate=3e-3", "algorithm.num_epochs=5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", LEARNERS.values(), ids=LEARNERS.keys())
def test_an_agent_learns_from_pixels(words) -> None:
    parts = trained(*LAMP, *words, "optimizer=adam")
    played = parts.vector.finished[-400:]
    assert sum(episode.episode_return for episode in played) / len(played) > 0.9


@pytest.mark.parametrize("words", [("algorithm=dqn", "experience.learning_starts=20"), ("algorithm=reinforce",)])
def test_others_build_act_and_learn_on_pixels(words) -> None:
    parts = built(*LAMP, *words)
    before = parts.state.weights()
    for _ in range(4):
        batch = parts.experience.next(parts.actor, parts.state.progress)
        if batch is not None:
            assert batch.observation.shape[2:] == (4, 6, 1)
            metrics = parts.algorithm.update(parts.state, batch, parts.state.progress).metrics
            assert all(torch.isfinite(value) for value in metrics.values())
    assert any(not torch.equal(before[name], values) for name, values in parts.state.weights().items())
