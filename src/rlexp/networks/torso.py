"""Torsos: from an observation to features. Each is a choice of the `network` group."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar, Literal

from torch import nn

from rlexp.networks.layers import Conv, Image, LayerNorm, Linear, OneHot
from rlexp.ranges import Range
from rlexp.types import Box, Discrete, Space

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


def observation_kind(observation: Space) -> str:
    """ "discrete", "vector" (one dim), "image" (three dims) or "tensor": what torsos say that they take."""
    if isinstance(observation, Discrete):
        return "discrete"
    return {1: "vector", 3: "image"}.get(len(observation.shape), "tensor")


def features(observation: Space) -> tuple[nn.Module, int]:
    """Integers as indicator vectors, vectors as they are."""
    if isinstance(observation, Discrete):
        return OneHot(observation.n), observation.n
    assert isinstance(observation, Box)
    return nn.Identity(), observation.shape[0]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers of `hidden` widths, each followed by the activation.

    layer_norm: normalise each before its activation. Features are then bounded, and so is what a value network makes of
    states that it has not seen: temporal-difference learning off-policy diverges less (Gallici et al. 2024,
    arXiv:2407.04811).
    """

    _: KW_ONLY
    hidden: Sequence[Annotated[int, Range(1)]]
    activation: Literal["tanh", "relu", "elu"]
    layer_norm: bool

    takes: ClassVar[frozenset[str]] = frozenset({"discrete", "vector"})

    def __call__(self, observation: Space) -> tuple[nn.Module, int]:
        first, width = features(observation)
        layers = [first]
        for size in self.hidden:
            normalisation = [LayerNorm()] if self.layer_norm else []
            layers += [Linear(width, size), *normalisation, ACTIVATIONS[self.activation]()]
            width = size
        return nn.Sequential(*layers), width


@dataclass(frozen=True)
class CNN:
    """Convolutions of `channels` outputs, then fully connected layers of `hidden` widths, each followed by a ReLU.

    Each convolution divides height and width by `stride`, rounding up, so that images of any size pass. Acting runs the
    torch modules: a convolution gains nothing in NumPy.
    After Mnih et al. 2016, arXiv:1602.01783, section 8, with small kernels for small images.
    """

    _: KW_ONLY
    channels: Sequence[Annotated[int, Range(1)]]
    kernel_size: Literal[1, 3, 5, 7]  # odd, so that the padding is the same on both sides
    stride: Annotated[int, Range(1)]
    hidden: Sequence[Annotated[int, Range(1)]]

    takes: ClassVar[frozenset[str]] = frozenset({"image"})

    def __call__(self, observation: Space) -> tuple[nn.Module, int]:
        assert isinstance(observation, Box)
        height, width, depth = observation.shape
        layers: list[nn.Module] = [Image(observation.low, observation.high)]
        for size in self.channels:
            layers += [Conv(depth, size, self.kernel_size, self.stride), nn.ReLU()]
            height, width, depth = -(-height // self.stride), -(-width // self.stride), size
        layers.append(nn.Flatten(-3))
        features = height * width * depth
        for size in self.hidden:
            layers += [Linear(features, size), nn.ReLU()]
            features = size
        return nn.Sequential(*layers), features


@dataclass(frozen=True)
class LinearFeatures:
    """No hidden layer: the head is linear in the observation."""

    takes: ClassVar[frozenset[str]] = frozenset({"discrete", "vector"})

    def __call__(self, observation: Space) -> tuple[nn.Module, int]:
        return features(observation)


@dataclass(frozen=True)
class Tabular:
    """One row of numbers for each discrete observation."""

    takes: ClassVar[frozenset[str]] = frozenset({"discrete"})

    def __call__(self, observation: Space) -> tuple[nn.Module, int]:
        return features(observation)
