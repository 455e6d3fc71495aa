"""Five environments with known answers: what an algorithm learns there is right or there is a bug.

    1 constant reward               V(0) = 1
    2 value from the observation    V(o) = o
    3 discounting over two steps    V(0) = gamma, V(1) = 1
    4 action-dependent reward       Q(a) = 1 for a = 1, -1 for a = 0
    5 both                          Q(o, a) = 1 where a matches the sign of o, else -1

With continuous actions a in [-1, 1], Q is a in 4 and o a in 5. Each runs a second or two; values are asserted to
TOLERANCE of rewards whose size is 1.
"""

import math

import pytest
import torch

from tests.algorithms.runs import trained

GAMMA, TOLERANCE = 0.9, 0.05
SHARED = (f"algorithm.gamma={GAMMA}", "network.hidden=[16]", "optimizer.learning_rate=3e-2")
PPO = (
    "algorithm=ppo", *SHARED, "total_env_steps=2560", "algorithm.num_epochs=5", "algorithm.num_minibatches=1",
    "experience.rollout_length=16", "experience.num_envs=8",
)  # fmt: skip
DQN = (
    "algorithm=dqn", *SHARED, "total_env_steps=1000", "algorithm.target_update_interval=10", "exploration.epsilon=1.0",
    "experience.num_envs=4", "experience.capacity=1000", "experience.learning_starts=200", "experience.batch_size=64",
    "experience.collection_steps=8", "experience.updates_per_collection=2",
)  # fmt: skip
A2C = (
    "algorithm=a2c", *SHARED, "optimizer=adam", "total_env_steps=8000", "experience.num_envs=16",
    "algorithm.entropy_coef=0",
)  # fmt: skip
REINFORCE = (
    "algorithm=reinforce", *SHARED, "total_env_steps=4000", "experience.num_episodes=32", "experience.num_envs=16",
)  # fmt: skip
SAC = (
    "algorithm=sac", *SHARED, "total_env_steps=1000", "algorithm.tau=0.1", "env.kwargs={continuous: true}",
    "experience.num_envs=4", "experience.capacity=1000", "experience.learning_starts=200", "experience.batch_size=64",
    "experience.collection_steps=8", "experience.updates_per_collection=2",
)  # fmt: skip
# Probe: {observation: (value of the best policy, values of both actions)}
ANSWERS = {
    1: {0.0: (1.0, (1.0, 1.0))},
    2: {-1.0: (-1.0, (-1.0, -1.0)), 1.0: (1.0, (1.0, 1.0))},
    3: {0.0: (GAMMA, (GAMMA, GAMMA)), 1.0: (1.0, (1.0, 1.0))},
    4: {0.0: (1.0, (-1.0, 1.0))},
    5: {-1.0: (1.0, (1.0, -1.0)), 1.0: (1.0, (-1.0, 1.0))},
}


def evaluate(network, observation: float) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.tensor([[observation]]))[0]


def check_actor_critic(parts, number: int) -> None:
    """The value of each observation, where there is a critic, and the better action where there is one."""
    nets = parts.state.nets
    encode = getattr(nets, "encoder", torch.nn.Identity())
    for observation, (value, q_values) in ANSWERS[number].items():
        if hasattr(nets, "critic"):
            learned = evaluate(lambda x: nets.critic(encode(x)), observation)
            assert learned.item() == pytest.approx(value, abs=TOLERANCE)
        if q_values[0] != q_values[1]:
            probability = evaluate(lambda x: nets.actor(encode(x)), observation).softmax(-1)
            best = max((0, 1), key=lambda action: q_values[action])
            assert probability[best] > 0.95


SOME = [pytest.param(number, marks=() if number in (3, 5) else pytest.mark.slow) for number in ANSWERS]
"""Discounting and the whole by default, for algorithms that share what PPO and DQN are held to; the rest is slow."""


@pytest.mark.parametrize("number", ANSWERS)
def test_ppo(number: int) -> None:
    check_actor_critic(trained(*PPO, f"env=probe_{number}"), number)


@pytest.mark.parametrize("estimator", ["monte_carlo", "one_step_td", "n_step", "td_lambda"])
def test_ppo_discounts_with_every_estimator(estimator: str) -> None:
    """The fifth, gae, is what the other tests run."""
    check_actor_critic(trained(*PPO, "env=probe_3", f"estimator={estimator}"), 3)


def test_ppo_with_a_shared_encoder() -> None:
    check_actor_critic(trained(*PPO, "env=probe_5", "algorithm.shared_encoder=true"), 5)


@pytest.mark.parametrize("number", SOME)
def test_a2c(number: int) -> None:
    check_actor_critic(trained(*A2C, f"env=probe_{number}"), number)


def test_a2c_with_a_shared_encoder() -> None:
    check_actor_critic(trained(*A2C, "env=probe_5", "algorithm.shared_encoder=true"), 5)


@pytest.mark.parametrize("number", SOME)
def test_reinforce(number: int) -> None:
    check_actor_critic(trained(*REINFORCE, f"env=probe_{number}"), number)


@pytest.mark.parametrize("number", [4, 5])
def test_reinforce_without_a_critic(number: int) -> None:
    parts = trained(*REINFORCE, f"env=probe_{number}", "baseline=none")
    assert set(parts.state.modules) == {"actor"}
    check_actor_critic(parts, number)


@pytest.mark.parametrize("number", ANSWERS)
def test_dqn(number: int) -> None:
    parts = trained(*DQN, f"env=probe_{number}")
    for observation, (_, q_values) in ANSWERS[number].items():
        learned = evaluate(parts.state.nets.q, observation)
        assert learned.tolist() == pytest.approx(q_values, abs=TOLERANCE)
        if q_values[0] != q_values[1]:
            assert learned.argmax().item() == max((0, 1), key=lambda action: q_values[action])


def values_of(parts, observation: float, actions: tuple[float, ...] = (-0.7, 0.0, 0.7)) -> torch.Tensor:
    """[2, A], of both critics."""
    with torch.no_grad():
        return parts.state.nets.critic(torch.full((len(actions), 1), observation), torch.tensor(actions).unsqueeze(-1))


@pytest.mark.parametrize("number", SOME)
def test_sac(number: int) -> None:
    """Starting from a small temperature, so that entropy is worth next to nothing."""
    parts = trained(*SAC, f"env=probe_{number}", "algorithm.initial_temperature=1e-3", "algorithm.target_entropy=-3")
    for observation, (value, q_values) in ANSWERS[number].items():
        slope = (q_values[1] - q_values[0]) / 2
        expected = [value + slope * a if slope == 0 else slope * a for a in (-0.7, 0.0, 0.7)]
        for learned in values_of(parts, observation):
            assert learned.tolist() == pytest.approx(expected, abs=2 * TOLERANCE)
        action = parts.algorithm.squashed_policy.mode(evaluate(parts.state.nets.actor, observation))
        if slope != 0:
            assert action.item() * slope > 0.9


def test_sac_values_entropy() -> None:
    """Probe 3 at a temperature held at 0.5: no action matters, so the best policy is uniform, of log 2 nats.

    Q(1) = 1 as before, Q(0) = gamma (1 + 0.5 log 2); the last step is followed by nothing, so by no entropy either.
    """
    parts = trained(
        *SAC, "env=probe_3", "algorithm.initial_temperature=0.5", "optimizer.networks.temperature.learning_rate=1e-30"
    )
    for learned in values_of(parts, 1.0):
        assert learned.tolist() == pytest.approx([1.0] * 3, abs=2 * TOLERANCE)
    for learned in values_of(parts, 0.0):
        assert learned.tolist() == pytest.approx([GAMMA * (1 + 0.5 * math.log(2))] * 3, abs=2 * TOLERANCE)


@pytest.mark.parametrize("target", [-1.0, 0.3])
def test_sac_holds_its_entropy(target: float) -> None:
    """Probe 4: the temperature is moved until the policy has the entropy asked for (an action in [-1, 1]: h = 1)."""
    slower = ("optimizer.learning_rate=1e-2", "algorithm.initial_temperature=0.3")
    parts = trained(*SAC, "env=probe_4", *slower, f"algorithm.target_entropy={target}")
    observation, noise = torch.zeros(1, 2000, 1), parts.state.draw("test", parts.algorithm.noise(None), 1, 2000)
    with torch.no_grad():
        _, metrics = parts.algorithm.actor_loss(parts.state.nets, observation, noise)
    assert metrics["policy/entropy"].item() == pytest.approx(target, abs=0.25)
