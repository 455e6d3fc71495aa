"""Recorded episodes: put together in their order, saved and read, or refused."""

from pathlib import Path

import numpy as np
import pytest

from rlexp.data.episodes import Episodes, Recorder, load_episodes, save_episodes
from rlexp.data.uniform import COLUMNS
from rlexp.errors import ConfigError, StorageError
from rlexp.storage.checkpoints import load_tree, save_tree
from rlexp.types import Box, Discrete, EnvSpec

SPECS = {
    "vector, integers": EnvSpec("a", Box((3,)), Discrete(4), 100, False),
    "integer, vectors": EnvSpec("b", Discrete(10**6), Box((2,), -1.0, 1.0), 100, False),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
LENGTHS = {3: 4, 4: 2, 5: 1, 6: 5}  # by number; 7 and 8 are begun and not asked for
PLAYED = [[3, 3, 3, 3, 5, 7, 7], [4, 4, 6, 6, 6, 6, 6]]  # of two environments


def step(spec: EnvSpec, value: np.ndarray) -> dict[str, np.ndarray]:
    """A step of B environments that holds a value of each, [B], in every column."""

    def spread(shape: tuple[int, ...], dtype: type, shift: float) -> np.ndarray:
        column = value.reshape(-1, *(1 for _ in shape)) + shift
        return np.broadcast_to(column, (len(value), *shape)).astype(dtype)

    real = isinstance(spec.action, Box)
    return {
        "observation": spread(spec.observation.shape, spec.observation.dtype, 0),
        "action": spread(spec.action.shape, spec.action.dtype, -33.5 if real else 1),
        "reward": spread((), np.float32, 2),
        "terminated": spread((), np.float32, 3),
        "truncated": spread((), np.float32, 4),
        "next_observation": spread(spec.observation.shape, spec.observation.dtype, 5),
    }


def recorded(spec: EnvSpec) -> Episodes:
    """Episodes 3 to 6; the value of a step is 10 times its episode's number and its time."""
    recorder = Recorder(spec, range(3, 7))
    value = np.array([[10 * n + row[:t].count(n) for t, n in enumerate(row)] for row in PLAYED])
    for t in range(value.shape[1]):
        reused = step(spec, value[:, t])
        recorder.add([row[t] for row in PLAYED], reused)
        for column in reused.values():
            column[...] = 99
    return recorder.episodes([103, 104, 105, 106], [0.1, 0.2, 0.3, 0.4], {"policy": "sampled"})


@every_spec
def test_steps_of_environments_side_by_side_become_episodes(spec: EnvSpec) -> None:
    episodes = recorded(spec)
    assert tuple(episodes.columns) == COLUMNS
    assert episodes.start.tolist() == [0, 4, 6, 7, 12]
    assert episodes.number.tolist() == list(LENGTHS)
    assert episodes.length.tolist() == list(LENGTHS.values())
    assert (episodes.seed.tolist(), episodes.episode_return.tolist()) == ([103, 104, 105, 106], [0.1, 0.2, 0.3, 0.4])
    value = np.concatenate([10 * n + np.arange(length) for n, length in LENGTHS.items()])
    assert episodes.columns["time"].tolist() == [t for length in LENGTHS.values() for t in range(length)]
    for name, shift in {"reward": 2, "terminated": 3, "truncated": 4}.items():
        assert episodes.columns[name].tolist() == (value + shift).tolist()
    for name, shift in {"observation": 0, "next_observation": 5}.items():
        column = episodes.columns[name]
        assert (column.shape, column.dtype) == ((12, *spec.observation.shape), spec.observation.dtype)
        assert (column.reshape(12, -1) == (value + shift)[:, None]).all()
    assert episodes.of(3)["reward"].tolist() == [62, 63, 64, 65, 66]
    assert episodes.about["env"]["id"] == spec.id
    assert episodes.about["policy"] == "sampled"


def test_actions_are_kept_as_the_environment_took_them() -> None:
    integers = recorded(SPECS["vector, integers"]).columns["action"]
    assert (integers.shape, integers.dtype, integers[:4].tolist()) == ((12,), np.int64, [31, 32, 33, 34])
    clipped = recorded(SPECS["integer, vectors"]).columns["action"]
    assert (clipped.shape, clipped.dtype) == ((12, 2), np.float32)
    assert clipped[:5].tolist() == [[-1, -1], [-1, -1], [-1, -1], [-0.5, -0.5], [1, 1]]


@every_spec
def test_saved_episodes_come_back(spec: EnvSpec, tmp_path: Path) -> None:
    episodes = recorded(spec)
    save_episodes(tmp_path / "made" / "here", episodes)
    back = load_episodes(tmp_path / "made" / "here")
    for name in COLUMNS:
        assert back.columns[name].dtype == episodes.columns[name].dtype
        np.testing.assert_array_equal(back.columns[name], episodes.columns[name])
    for field in ("start", "number", "seed", "episode_return"):
        np.testing.assert_array_equal(getattr(back, field), getattr(episodes, field))
    assert back.about["env"]["action"]["kind"] == spec.action.kind
    assert back.about["policy"] == "sampled"


def test_nothing_is_replaced(tmp_path: Path) -> None:
    episodes = recorded(SPECS["vector, integers"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(ConfigError, match="exists already"):
            save_episodes(tmp_path / name, episodes)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    save_episodes(tmp_path / "empty", episodes)
    with pytest.raises(ConfigError, match="exists already"):
        save_episodes(tmp_path / "empty", episodes)


def test_what_is_not_episodes_is_one_line(tmp_path: Path) -> None:
    save_tree(tmp_path / "weights", {"weights": {}, "env_steps": 3})
    with pytest.raises(StorageError, match=r"weights: holds no recorded episodes; .*--save-episodes"):
        load_episodes(tmp_path / "weights")
    with pytest.raises(StorageError, match="cannot read"):
        load_episodes(tmp_path / "none")
    save_episodes(tmp_path / "good", recorded(SPECS["vector, integers"]))
    tree = load_tree(tmp_path / "good")
    save_tree(tmp_path / "short", tree | {"start": tree["start"][:-1]})
    save_tree(tmp_path / "torn", tree | {"columns": tree["columns"] | {"reward": tree["columns"]["reward"][1:]}})
    for name in ("short", "torn"):
        with pytest.raises(StorageError, match="differ in length"):
            load_episodes(tmp_path / name)
    save_tree(tmp_path / "lacking", {name: value for name, value in tree.items() if name != "seed"})
    with pytest.raises(StorageError, match="not episodes of this version"):
        load_episodes(tmp_path / "lacking")
