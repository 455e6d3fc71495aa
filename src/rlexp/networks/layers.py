"""The layers that networks are made of, and their initialisation from a stream of their own."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlexp.networks.per_seed import linear_per_seed

SQRT2 = math.sqrt(2)


class Linear(nn.Linear):
    """A linear layer that remembers the gain of its initialisation and draws nothing when it is made.

    num_seeds: how many seeds' parameters it is called with under vmap; None: its own. The train state sets it.
    """

    num_seeds: int | None = None

    def __init__(self, in_features: int, out_features: int, gain: float = SQRT2) -> None:
        super().__init__(in_features, out_features)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        if self.num_seeds is None:
            return super().forward(x)
        return linear_per_seed(x, self.weight, self.bias, self.num_seeds)

    def reset_parameters(self) -> None:
        """Nothing: `initialise` fills the weights, from a generator with an owner."""


class Conv(nn.Conv2d):
    """A convolution [*B, C, H, W] that draws nothing when it is made; padded, so that images of any size pass."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        self.gain = SQRT2

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.reshape(-1, *x.shape[-3:]))
        return y.view(*x.shape[:-3], *y.shape[-3:])

    def reset_parameters(self) -> None:
        """Nothing: `initialise` fills the weights, from a generator with an owner."""


class Image(nn.Module):
    """Images with channels last, [*B, H, W, C], to channels first, [*B, C, H, W], from [low, high] to [0, 1].

    Bytes from 0 to 255 are the usual case. Where a bound is infinite the numbers are left as they are.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        bounded = math.isfinite(low) and math.isfinite(high)
        self.low, self.scale = (low, 1 / (high - low)) if bounded else (0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return (x.movedim(-1, -3).float() - self.low) * self.scale


class LayerNorm(nn.Module):
    """To mean 0 and variance 1 over the last dim; scale and shift are left to the next layer.

    Ba et al. 2016, arXiv:1607.06450, eq. 3.
    """

    eps = 1e-5  # added to the variance

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)


class OneHot(nn.Module):
    """Integers [*B] to indicator vectors [*B, n], so that a linear layer after it is a table."""

    eye: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("eye", torch.eye(n), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.eye[index]


class Squeeze(nn.Module):
    """[*B, 1] to [*B], the last layer of a value network."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)


class AppendLogStd(nn.Module):
    """Means [*B, A] to means and log standard deviations [*B, 2 A]; the deviations do not depend on the state."""

    def __init__(self, size: int, initial: float = 0.0) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((size,), initial))

    def forward(self, mean: Tensor) -> Tensor:
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)


class Ensemble(nn.Module):
    """Modules of one architecture and weights of their own, called on the same input: [*B] of each to [E, *B].

    One module after the other: at the sizes of a critic (batch 256, widths 256) batched matrix products are not faster.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members])


class StateAction(nn.Module):
    """A module of features of the observation and the action beside each other; called with both."""

    def __init__(self, features: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.module = module

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        y: Tensor = self.module(torch.cat([self.features(observation), action], -1))
        return y


class PositiveScalar(nn.Module):
    """One positive number, 0-d, without an input; its logarithm is the parameter."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        return self.log.exp()


class Table(nn.Module):
    """One number for each index, [*shape], from zero."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(*shape, dtype=dtype))

    def forward(self, *index: Tensor) -> Tensor:
        return self.table[index]


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Orthogonal weights with each layer's gain, zero biases (Saxe et al. 2014, arXiv:1312.6120).

    Of a convolution, the rows are its output channels.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (Linear, Conv)):
                nn.init.orthogonal_(layer.weight, layer.gain, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
