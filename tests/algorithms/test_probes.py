"""Five environments with known answers: what an algorithm learns there is right or there is a bug.

    1 constant reward               V(0) = 1
    2 value from the observation    V(o) = o
    3 discounting over two steps    V(0) = gamma, V(1) = 1
    4 action-dependent reward       Q(a) = 1 for a = 1, -1 for a = 0
    5 both                          Q(o, a) = 1 where a matches the sign of o, else -1

Each runs a second or two; values are asserted to TOLERANCE of rewards whose size is 1.
"""

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


@pytest.mark.parametrize("number", ANSWERS)
def test_ppo(number: int) -> None:
    check_actor_critic(trained(*PPO, f"env=probe_{number}"), number)


@pytest.mark.parametrize("estimator", ["monte_carlo", "one_step_td", "n_step", "td_lambda"])
def test_ppo_discounts_with_every_estimator(estimator: str) -> None:
    """The fifth, gae, is what the other tests run."""
    check_actor_critic(trained(*PPO, "env=probe_3", f"estimator={estimator}"), 3)


def test_ppo_with_a_shared_encoder() -> None:
    check_actor_critic(trained(*PPO, "env=probe_5", "algorithm.shared_encoder=true"), 5)


@pytest.mark.parametrize("number", ANSWERS)
def test_a2c(number: int) -> None:
    check_actor_critic(trained(*A2C, f"env=probe_{number}"), number)


def test_a2c_with_a_shared_encoder() -> None:
    check_actor_critic(trained(*A2C, "env=probe_5", "algorithm.shared_encoder=true"), 5)


@pytest.mark.parametrize("number", ANSWERS)
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
