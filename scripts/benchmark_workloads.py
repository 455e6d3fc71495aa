"""The workloads of scripts/benchmark.py: the same training runs in the words of each peer.

Three words differ: Stable-Baselines3's value loss is the mean square and rlexp's half of it (`value_coef` is twice
`vf_coef`), its target network is copied after so many environment steps and rlexp's after so many updates, and its
`gae_lambda=1` over a rollout of n steps is `estimator=n_step` of n.
"""

from dataclasses import dataclass
from typing import Any

PEERS = ("sb3", "rlexp")
PLAIN = "rlexp_torch"
"""rlexp with its updates and actions left to torch: what programs bring."""


@dataclass(frozen=True)
class Workload:
    """One training run. `steps` is a multiple of the steps between updates."""

    title: str
    steps: int
    warm_up: int  # environment steps before the window; learning starts within
    rlexp: tuple[str, ...]
    env_id: str
    sb3_class: str
    sb3_num_envs: int
    sb3: dict[str, Any]


def _dqn(title: str, steps: int, collection_steps: int) -> Workload:
    return Workload(
        title,
        steps,
        1_000,
        (
            "algorithm=dqn", "env=cartpole", "network.hidden=[120,84]", "network.activation=relu",
            "experience.num_envs=1", "experience.capacity=10000", "experience.batch_size=128",
            "experience.learning_starts=500", f"experience.collection_steps={collection_steps}",
            "experience.updates_per_collection=1", f"algorithm.target_update_interval={500 // collection_steps}",
            "algorithm.gamma=0.99", "algorithm.tau=1.0", "algorithm.huber_delta=1.0", "exploration.epsilon.end=0.05",
            "exploration.epsilon.fraction=0.2", "optimizer.learning_rate=2.5e-4", "optimizer.max_grad_norm=10.0",
            "optimizer.rule.eps=1e-8",
        ),
        "CartPole-v1",
        "DQN",
        1,
        {
            "learning_rate": 2.5e-4, "buffer_size": 10_000, "learning_starts": 500, "batch_size": 128, "gamma": 0.99,
            "tau": 1.0, "train_freq": collection_steps, "gradient_steps": 1, "target_update_interval": 500,
            "exploration_fraction": 0.2, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.05,
            "max_grad_norm": 10.0, "policy_kwargs": {"net_arch": [120, 84]},
        },
    )  # fmt: skip


WORKLOADS = {
    "W1": Workload(
        "PPO, CartPole-v1, 8 x 128 steps, 4 epochs of 4 minibatches, MLP 64-64 tanh",
        30_720,
        4_096,
        (
            "algorithm=ppo", "env=cartpole", "network.hidden=[64,64]", "network.activation=tanh",
            "experience.num_envs=8", "experience.rollout_length=128", "algorithm.gamma=0.99",
            "algorithm.num_epochs=4", "algorithm.num_minibatches=4", "algorithm.clip_ratio=0.2",
            "algorithm.value_coef=1.0", "algorithm.entropy_coef=0.0", "estimator.lambda_=0.95",
            "optimizer.learning_rate=2.5e-4", "optimizer.max_grad_norm=0.5", "optimizer.rule.eps=1e-5",
        ),
        "CartPole-v1",
        "PPO",
        8,
        {
            "learning_rate": 2.5e-4, "n_steps": 128, "batch_size": 256, "n_epochs": 4, "gamma": 0.99,
            "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        },
    ),
    "W2": _dqn("DQN, CartPole-v1, 1 environment, batch 128, an update every step, MLP 120-84", 5_000, 1),
    "W2b": _dqn("DQN, CartPole-v1, 1 environment, batch 128, an update every 10 steps, MLP 120-84", 20_000, 10),
    "W3": Workload(
        "SAC, Pendulum-v1, 1 environment, batch 256, an update every step, MLP 256-256",
        2_000,
        500,
        (
            "algorithm=sac", "env=pendulum", "network.hidden=[256,256]", "network.activation=relu",
            "experience.num_envs=1", "experience.capacity=100000", "experience.batch_size=256",
            "experience.learning_starts=100", "experience.collection_steps=1", "experience.updates_per_collection=1",
            "algorithm.gamma=0.99", "algorithm.tau=0.005", "algorithm.target_entropy=-1.0",
            "algorithm.initial_temperature=1.0", "optimizer.learning_rate=3e-4", "optimizer.max_grad_norm=null",
            "optimizer.rule.eps=1e-8",
        ),
        "Pendulum-v1",
        "SAC",
        1,
        {
            "learning_rate": 3e-4, "buffer_size": 100_000, "learning_starts": 100, "batch_size": 256, "gamma": 0.99,
            "tau": 0.005, "train_freq": 1, "gradient_steps": 1, "ent_coef": "auto", "target_entropy": "auto",
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "W4": Workload(
        "A2C, CartPole-v1, 8 x 5 steps, one update a rollout, MLP 64-64 tanh, RMSprop",
        40_000,
        4_000,
        (
            "algorithm=a2c", "env=cartpole", "network.hidden=[64,64]", "network.activation=tanh",
            "experience.num_envs=8", "experience.rollout_length=5", "algorithm.gamma=0.99", "algorithm.value_coef=1.0",
            "algorithm.entropy_coef=0.0", "estimator.n_step=5", "optimizer.learning_rate=7e-4",
            "optimizer.max_grad_norm=0.5", "optimizer.rule.alpha=0.99", "optimizer.rule.eps=1e-5",
        ),
        "CartPole-v1",
        "A2C",
        8,
        {
            "learning_rate": 7e-4, "n_steps": 5, "gamma": 0.99, "gae_lambda": 1.0, "ent_coef": 0.0, "vf_coef": 0.5,
            "max_grad_norm": 0.5, "use_rms_prop": True, "rms_prop_eps": 1e-5, "normalize_advantage": False,
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        },
    ),
    "W5": Workload(
        "PPO, HalfCheetah-v5, 1 x 2048 steps, 10 epochs of 32 minibatches, MLP 64-64 tanh",
        12_288,
        2_048,
        (
            "algorithm=ppo", "env=half_cheetah", "network.hidden=[64,64]", "network.activation=tanh",
            "experience.num_envs=1", "experience.rollout_length=2048", "algorithm.gamma=0.99",
            "algorithm.num_epochs=10", "algorithm.num_minibatches=32", "algorithm.clip_ratio=0.2",
            "algorithm.value_coef=1.0", "algorithm.entropy_coef=0.0", "estimator.lambda_=0.95",
            "optimizer.learning_rate=3e-4", "optimizer.max_grad_norm=0.5", "optimizer.rule.eps=1e-5",
        ),
        "HalfCheetah-v5",
        "PPO",
        1,
        {
            "learning_rate": 3e-4, "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gamma": 0.99,
            "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        },
    ),
}  # fmt: skip
