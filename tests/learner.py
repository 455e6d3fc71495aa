"""A small train state of three networks, and a loss through which each could get a gradient."""

import functools

import torch
from torch import nn

from rlexp.functional.schedules import constant
from rlexp.networks.layers import Linear, Squeeze
from rlexp.optimization import Optimization
from rlexp.state import TrainState

ADAM = functools.partial(torch.optim.Adam, eps=1e-5, fused=True)
RULES = {
    "adam": ADAM,
    "rmsprop": functools.partial(torch.optim.RMSprop, alpha=0.9),
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}


def how(rule=ADAM, learning_rate=1e-2, max_grad_norm: float | None = 0.5) -> Optimization:
    schedule = learning_rate if callable(learning_rate) else functools.partial(constant, value=learning_rate)
    return Optimization(rule=rule, learning_rate=schedule, max_grad_norm=max_grad_norm)


def critic() -> nn.Module:
    return nn.Sequential(Linear(3, 8), nn.Tanh(), Linear(8, 1), Squeeze()).double()


def make(optimizations=None, seed: int | list[int] = 0) -> TrainState:
    networks = {"actor": Linear(3, 2).double(), "critic": critic(), "target_critic": critic()}
    optimizations = optimizations or {"actor": how(), "critic": how()}
    targets = {"target_critic": "critic"}
    return TrainState(networks, targets, optimizations, seed=seed, device=torch.device("cpu"), total_env_steps=1000)


def batch(seed: int = 0) -> torch.Tensor:
    return torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss(nets, x, scale: float = 1.0):
    """Depends on all three networks, so that a gradient could reach each."""
    value = nets.critic(x) - nets.target_critic(x + 1) + nets.actor(x).square().sum(-1)
    return scale * (value - 3).square().mean(), {"loss/all": value.detach().mean()}


def changed(state: TrainState, before: dict) -> set[str]:
    return {name for name, values in state.weights().items() if not torch.equal(values, before[name])}
