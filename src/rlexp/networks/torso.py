"""Torsos: from an observation to features. Each is a choice of the `network` group."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar, Literal

from torch import nn

from rlexp.networks.layers import LayerNorm, Linear, OneHot
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
