"""A loss mapped over a leading dim of seeds is the losses one by one: values, metrics and gradients."""

from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.algorithms.runs import built

CASES = {
    "a2c": ("algorithm=a2c",),
    "a2c, shared encoder": ("algorithm=a2c", "algorithm.shared_encoder=true", "estimator=gae"),
    "reinforce": ("algorithm=reinforce",),
    "reinforce without a critic": ("algorithm=reinforce", "baseline=none"),
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_mapped_loss_is_the_losses_one_by_one(words) -> None:
    parts = [built(*words, "env.time_limit=40", "network.hidden=[8]", f"seed={seed}") for seed in (0, 1)]
    batches = [part.experience.next(part.actor, part.state.progress) for part in parts]
    modules = parts[0].state.modules
    names = batches[0]._fields
    stacked = [None if x is None else torch.stack([x, y]) for x, y in zip(*batches, strict=True)]
    parameters = {name: stack_module_state([p.state.modules[name] for p in parts])[0] for name in modules}
    template = batches[0]

    def loss(parameters, *columns):
        given = iter(columns)
        batch = template._replace(
            **{name: next(given) for name, x in zip(names, stacked, strict=True) if x is not None}
        )
        nets = SimpleNamespace(
            **{n: lambda x, n=n: functional_call(modules[n], parameters[n], (x,)) for n in parameters}
        )
        return parts[0].algorithm.loss(nets, batch)

    columns = [x for x in stacked if x is not None]
    gradients, (values, metrics) = vmap(grad_and_value(loss, has_aux=True))(parameters, *columns)
    for s, part in enumerate(parts):
        value, alone = part.algorithm.loss(part.state.nets, batches[s])
        torch.testing.assert_close(values[s], value.detach(), rtol=1e-5, atol=1e-5)
        assert set(alone) == set(metrics)
        for name, number in alone.items():
            torch.testing.assert_close(metrics[name][s], number, rtol=1e-4, atol=1e-5)
        for network, module in part.state.modules.items():
            for leaf, p in module.named_parameters():
                (expected,) = torch.autograd.grad(value, p, retain_graph=True)
                torch.testing.assert_close(gradients[network][leaf][s], expected, rtol=1e-4, atol=1e-5)
