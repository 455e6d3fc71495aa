"""Episodes of an evaluation: each is the same whichever others are played, and however many beside it."""

import functools

import pytest

from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.experiment.build import make_actor
from rlexp.experiment.evaluator import Evaluator, Result
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.playing import episode_seed, play

LINES = {
    "real actions": ["algorithm=ppo", "env=pendulum", "env.time_limit=40"],
    "integer actions": ["algorithm=dqn", "env=cartpole"],
}
WIDTH = 5


class Policy:
    """One of untrained networks, with what plays its episodes."""

    def __init__(self, *line: str) -> None:
        (job,) = checked_jobs([*line, f"evaluation.num_envs={WIDTH}"], multirun=False)
        self.config, self.spec = job.config, job.spec
        self.actor = make_actor(job.config, job.spec, job.schema)
        self.state = self.actor.state

    def evaluated(self, episodes: int, policy: str) -> Result:
        evaluator = Evaluator(self.config, self.spec, self.actor, None)
        return evaluator.evaluate(self.state.weights(), self.state.progress, episodes, policy)

    def alone(self, numbers: range, policy: str) -> list[tuple[int, float, int]]:
        """Seed, return and length of episodes played one after the other."""
        settings = self.config["evaluation"]
        make = functools.partial(make_env, self.spec.id, {})
        vector = SyncVector(make, self.spec, 1, episode_seed(settings, numbers, 1))
        turns = play(vector, self.actor, self.state.progress, settings, numbers, explore=policy == "sampled")
        found = {n: episode for turn in turns for n, episode in turn.finished.items()}
        assert sorted(found) == list(numbers)
        return [(e.seed, e.episode_return, e.length) for n, e in sorted(found.items())]


@pytest.mark.parametrize("policy", ["deterministic", "sampled"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_an_episode_does_not_depend_on_the_others(line: list[str], policy: str) -> None:
    """Fewer than the rows, as many, more: bit for bit, though a matrix product of another shape rounds otherwise."""
    made = Policy(*line)
    whole = made.evaluated(3 * WIDTH + 2, policy)
    assert len(set(whole.seeds)) == 3 * WIDTH + 2
    assert len(set(whole.returns)) > 1
    for episodes in (1, 2, WIDTH, WIDTH + 1, 2 * WIDTH):
        fewer = made.evaluated(episodes, policy)
        assert fewer == Result(whole.seeds[:episodes], whole.returns[:episodes], whole.lengths[:episodes])
    numbers = range(4, 4 + WIDTH + 2)
    assert made.alone(numbers, policy) == list(zip(*whole, strict=True))[numbers.start : numbers.stop]
