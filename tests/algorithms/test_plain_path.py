"""Updates by programs are updates by torch, up to rounding, and every function of an algorithm is a program."""

import pytest
import torch

from rlexp.experiment.build import build
from rlexp.programs.programs import Programs
from tests.algorithms.runs import checked

SMALL = ("network.hidden=[8]", "env.time_limit=40", "experience.num_envs=2")
ROLLOUT = (*SMALL, "experience.rollout_length=8")
REPLAY = (*SMALL, "experience.learning_starts=20", "experience.batch_size=8")
ESTIMATORS = ("gae", "n_step", "one_step_td", "td_lambda", "monte_carlo")
CASES = {
    "ppo": ("algorithm=ppo", *ROLLOUT),
    "ppo, box": ("algorithm=ppo", "env=pendulum", *ROLLOUT),
    "ppo, shared encoder": ("algorithm=ppo", *ROLLOUT, "algorithm.shared_encoder=true"),
    "ppo, target_kl": ("algorithm=ppo", *ROLLOUT, "algorithm.target_kl=0.0001"),
    "ppo, normalised": ("algorithm=ppo", *ROLLOUT, "normalization=observations_and_rewards"),
    "ppo, elu": ("algorithm=ppo", *ROLLOUT, "network.activation=elu"),
    "ppo, integers": ("algorithm=ppo", "env=taxi", *ROLLOUT),
    **{f"a2c, {name}": ("algorithm=a2c", *ROLLOUT, f"estimator={name}") for name in ESTIMATORS},
    "a2c, box": ("algorithm=a2c", "env=pendulum", *ROLLOUT),
    "a2c, shared encoder": ("algorithm=a2c", *ROLLOUT, "algorithm.shared_encoder=true"),
    "dqn": ("algorithm=dqn", *REPLAY),
    "dqn, n steps": (
        "algorithm=dqn",
        *REPLAY,
        "estimator=n_step",
        "estimator.n_step=3",
        "experience.sequence_length=3",
    ),
    "dqn, layer norm": ("algorithm=dqn", *REPLAY, "network.layer_norm=true"),
    "sac": ("algorithm=sac", "env=pendulum", *REPLAY),
}
UPDATES = 2
RARE = {
    "ppo, box",
    "ppo, normalised",
    "ppo, integers",
    "a2c, n_step",
    "a2c, one_step_td",
    "a2c, monte_carlo",
    "a2c, box",
}
CHOICES = [
    pytest.param(words, id=name, marks=[pytest.mark.slow] if name in RARE else []) for name, words in CASES.items()
]


def learned(words: tuple[str, ...], *, programs: bool, seeds: str = "seed=0"):
    """Weights and metrics after each of some updates, and the programs."""
    job = checked((*words, seeds))
    execution = {**job.config["execution"], "programs": programs}
    parts = build({**job.config, "execution": execution}, job.spec, job.schema)
    found = []
    while len(found) < UPDATES:
        batch = parts.experience.next(parts.actor, parts.state.progress)
        parts.state.advance(parts.experience)
        if batch is not None:
            metrics = parts.algorithm.update(parts.state, batch, parts.state.progress).metrics
            found.append((parts.state.weights(), metrics))
    parts.close()
    return found, parts


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_programs_on_and_off(words: tuple[str, ...]) -> None:
    by_programs, parts = learned(words, programs=True)
    plain, without = learned(words, programs=False)
    made = parts.state._programs._made
    assert made
    assert None not in made.values()
    assert not without.state._programs._made
    assert not without.actor._programs
    assert parts.actor._programs
    assert None not in parts.actor._programs.values()
    for (weights, metrics), (expected, others) in zip(by_programs, plain, strict=True):
        for name in expected:
            torch.testing.assert_close(weights[name], expected[name], rtol=1e-4, atol=1e-5)
        assert list(metrics) == list(others)
        for name, value in others.items():
            torch.testing.assert_close(metrics[name], value, rtol=1e-3, atol=1e-4)
            assert metrics[name].dtype == value.dtype


@pytest.mark.parametrize("words", CHOICES)
def test_stacked_seeds_equal_each_alone(words: tuple[str, ...]) -> None:
    """Bit for bit."""
    together, parts = learned(words, programs=True, seeds="seeds=[3,0]")
    assert None not in parts.state._programs._made.values()
    for place, seed in enumerate((3, 0)):
        alone, _ = learned(words, programs=True, seeds=f"seed={seed}")
        for (weights, metrics), (expected, others) in zip(together, alone, strict=True):
            for name, values in expected.items():
                assert torch.equal(weights[name][place], values), name
            for name, value in others.items():
                assert torch.equal(metrics[name][place], value), name


def test_what_the_train_state_asks_for(monkeypatch) -> None:
    """Each loss is recorded once, whatever its schedules give."""
    words = CASES["ppo"]
    asked = []
    run = Programs.run
    monkeypatch.setattr(Programs, "run", lambda self, *given: asked.append(given[0]) or run(self, *given))
    _, parts = learned(words, programs=True)
    assert len(asked) > 3 * len(parts.state._programs._made)
