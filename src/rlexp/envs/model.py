"""The finite model that toy-text environments carry, as tensors."""

import torch

from rlexp.envs.make import make_env
from rlexp.types import MDP, Discrete, EnvSpec


def read_model(spec: EnvSpec, kwargs: dict[str, object]) -> MDP:
    """Transition [S, A, S] and reward [S, A] of an environment whose `P[s][a]` lists (probability, s', reward, ended).

    What ends the episode carries no mass: nothing is bootstrapped from a terminal state. float64.
    """
    assert isinstance(spec.observation, Discrete)
    assert isinstance(spec.action, Discrete)
    transition = torch.zeros(spec.observation.n, spec.action.n, spec.observation.n, dtype=torch.float64)
    reward = torch.zeros(spec.observation.n, spec.action.n, dtype=torch.float64)
    env = make_env(spec.id, kwargs)
    try:
        table = env.unwrapped.P  # type: ignore[attr-defined]
        for state in range(spec.observation.n):
            for action in range(spec.action.n):
                for probability, successor, gain, ended in table[state][action]:
                    reward[state, action] += probability * gain
                    if not ended:
                        transition[state, action, successor] += probability
    finally:
        env.close()
    return MDP(transition, reward)
