"""Episodes of a saved run as data: the steps of what its evaluation measured."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlexp.data.episodes import load_episodes
from rlexp.envs.make import make_env
from rlexp.errors import ConfigError
from rlexp.experiment.saved import evaluate_saved, load_saved, record_saved
from rlexp.storage import read_json, write_json
from tests.experiment.conftest import SAVED_RUNS


@pytest.mark.parametrize("name", SAVED_RUNS)
@pytest.mark.parametrize("policy", ["deterministic", "sampled"])
def test_recorded_steps_are_those_of_the_evaluation(saved_runs, name: str, policy: str, tmp_path: Path) -> None:
    """Returns and lengths are the cached ones, and the environment gives the recorded numbers for the actions."""
    measured = evaluate_saved(saved_runs[name], "final", 8, policy)
    saved = load_saved(saved_runs[name], "final")
    result, steps, changed = record_saved(saved, 5, policy, tmp_path / "data")
    assert (result, changed) == (measured.part(range(5)), [])
    assert saved.evaluator.known(saved.weights, saved.progress, policy) == measured
    episodes = load_episodes(tmp_path / "data")
    assert episodes.seed.tolist() == result.seeds
    assert episodes.episode_return.tolist() == result.returns
    assert episodes.length.tolist() == result.lengths
    assert steps == sum(result.lengths) == len(episodes.columns["time"])
    env = make_env(saved.spec.id, saved.config["env"]["kwargs"])
    for e in range(5):
        check_episode(env, episodes.of(e), int(episodes.seed[e]), result.returns[e], saved.spec.time_limit)
    about = episodes.about
    assert (about["run"], about["policy"], about["env"]["id"]) == (str(saved_runs[name]), policy, saved.spec.id)
    assert about["weights"]["which"] == "final"
    assert len(about["weights"]["sha256"]) == 64


def check_episode(env: Any, of_it: dict[str, np.ndarray], seed: int, episode_return: float, limit: int) -> None:
    """Play the recorded actions again."""
    observation, total = env.reset(seed=seed)[0], 0.0
    for t, action in enumerate(of_it["action"]):
        assert of_it["time"][t] == t
        np.testing.assert_array_equal(of_it["observation"][t], observation)
        observation, reward, ended, _, _ = env.step(action if action.ndim else int(action))
        np.testing.assert_array_equal(of_it["next_observation"][t], observation)
        assert of_it["reward"][t] == np.float32(reward)
        assert (of_it["terminated"][t], of_it["truncated"][t]) == (ended, t + 1 == limit and not ended)
        total += float(reward)
    assert total == episode_return
    assert (of_it["terminated"] + of_it["truncated"])[:-1].sum() == 0
    assert of_it["terminated"][-1] + of_it["truncated"][-1] == 1


def test_recording_more_than_is_known_makes_it_known(saved_runs, tmp_path: Path) -> None:
    saved = load_saved(saved_runs["pendulum"], "best")
    result, _, changed = record_saved(saved, 9, None, tmp_path / "data")
    assert (len(result.returns), changed) == (9, [])
    assert saved.evaluator.known(saved.weights, saved.progress) == result


def test_an_episode_that_comes_out_otherwise_is_named(saved_runs, tmp_path: Path) -> None:
    """What was measured stays; the data hold what was played."""
    run = shutil.copytree(saved_runs["frozen_lake"], tmp_path / "run")
    measured = evaluate_saved(run, "final", 6, None)
    for file in (run / "evaluations").iterdir():
        held = read_json(file)
        held["episodes"]["return"][1:4:2] = [42.0] * len(held["episodes"]["return"][1:4:2])
        write_json(file, held)
    result, _, changed = record_saved(load_saved(run, "final"), 4, None, tmp_path / "data")
    assert (changed, result) == ([1, 3], measured.part(range(4)))
    assert load_episodes(tmp_path / "data").episode_return.tolist() == measured.returns[:4]
    assert evaluate_saved(run, "final", 4, None).returns[1] == 42.0
    known = evaluate_saved(run, "final", 4, None).part(range(2, 4))
    assert measured.part(range(2, 4)).changed(known, first=2) == [3]


def test_a_folder_that_exists_is_refused_before_anything_is_played(saved_runs, tmp_path: Path, monkeypatch) -> None:
    saved = load_saved(saved_runs["frozen_lake"], "final")
    monkeypatch.setattr("rlexp.experiment.evaluator.play", lambda *_, **__: pytest.fail("it was played"))
    (tmp_path / "kept").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        record_saved(saved, 3, None, tmp_path)
