"""What is watched or recorded of a saved run is what its evaluation measured."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rlexp.envs.make import make_env
from rlexp.envs.vector import Episode
from rlexp.errors import ConfigError, EnvironmentFailure, StorageError
from rlexp.experiment.evaluator import Result
from rlexp.experiment.saved import Saved, evaluate_saved, load_saved
from rlexp.experiment.video import write_video
from rlexp.experiment.watching import film, show
from tests.conftest import env_spec
from tests.experiment.conftest import SAVED_RUNS

every_run = pytest.mark.parametrize("name", SAVED_RUNS)
every_policy = pytest.mark.parametrize("policy", ["deterministic", "sampled"])


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Played(NamedTuple):
    numbers: list[int]
    result: Result


def listener() -> tuple[Played, Any]:
    """What is told of episodes, and what is to be told."""
    played = Played([], Result([], [], []))

    def each(n: int, episode: Episode) -> None:
        played.numbers.append(n)
        played.result.add(episode)

    return played, each


def filmed(saved: Saved, numbers: range, policy: str, path: Path) -> tuple[Played, int]:
    played, each = listener()
    count, _ = film(saved, numbers, policy, path, None, each)
    return played, count


@every_run
@every_policy
def test_what_is_filmed_is_what_was_measured(saved_runs, name: str, policy: str, tmp_path: Path, monkeypatch) -> None:
    """Bit for bit, though it is played alone and was measured beside others."""
    monkeypatch.setattr("rlexp.experiment.watching.check_video", lambda path: None)
    monkeypatch.setattr("rlexp.experiment.watching.write_video", lambda path, pictures, fps: sum(1 for _ in pictures))
    measured = evaluate_saved(saved_runs[name], "final", 7, policy)
    numbers = range(2, 6)
    played, count = filmed(load_saved(saved_runs[name], "final"), numbers, policy, tmp_path / "a.gif")
    assert played == (list(numbers), measured.part(numbers))
    assert count == sum(length + 1 for length in played.result.lengths)


def test_what_is_shown_is_what_was_measured(saved_runs) -> None:
    played, each = listener()
    show(load_saved(saved_runs["pendulum"], "final"), range(1, 3), "deterministic", each)
    assert played == ([1, 2], evaluate_saved(saved_runs["pendulum"], "final", 3, "deterministic").part(range(1, 3)))


def first_picture(saved: Saved, seed: int) -> np.ndarray:
    env = make_env(saved.spec.id, {"render_mode": "rgb_array"})
    env.reset(seed=seed)
    picture: Any = env.render()
    env.close()
    return picture.astype(int)


def test_an_mp4_holds_every_picture(saved_runs, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    saved = load_saved(saved_runs["pendulum"], "final")
    path = tmp_path / "made" / "a.mp4"
    played, count = filmed(saved, range(2), "deterministic", path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.width, stream.height) == ("h264", 30, 500, 500)
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) == count == 2 * 13
    for start, seed in zip((0, 13), played.result.seeds, strict=True):
        assert np.abs(pictures[start] - first_picture(saved, seed)).mean() < 1  # colours are compressed
    assert np.abs(pictures[12] - first_picture(saved, played.result.seeds[1])).mean() > 2  # still the first episode
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_a_gif_holds_every_picture(saved_runs, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    saved = load_saved(saved_runs["frozen_lake"], "final")
    played, count = filmed(saved, range(1), "deterministic", tmp_path / "a.gif")
    shown, duration = [], 0
    with image.open(tmp_path / "a.gif") as gif:
        for k in range(gif.n_frames):
            gif.seek(k)
            duration += gif.info["duration"]
            shown.append(np.asarray(gif.convert("RGB")).astype(int))
    assert duration == 250 * count  # 4 a second; equal pictures are one that lasts
    assert np.abs(shown[0] - first_picture(saved, played.result.seeds[0])).max() < 50


def test_a_gif_of_a_fast_simulator_is_thinned(tmp_path: Path) -> None:
    """Viewers slow down a GIF of more than 50 pictures a second."""
    image = pytest.importorskip("PIL.Image")
    pictures = (np.full((4, 4, 3), 2 * k, np.uint8) for k in range(100))
    assert write_video(tmp_path / "a.gif", pictures, 125) == 100
    with image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"]) == (34, 20)  # of 24 ms; a GIF counts in 10


def test_an_odd_size_is_no_obstacle(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    assert write_video(tmp_path / "a.mp4", iter([np.zeros((25, 31, 3), np.uint8)] * 3), 29.97) == 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (30, 24)


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_video_that_fails_leaves_the_old_one(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("av")

    def broken():
        yield from [np.zeros((16, 16, 3), np.uint8)] * 3
        raise EnvironmentFailure("the pole broke")

    path = tmp_path / f"a.{ending}"
    path.write_text("old")
    with pytest.raises(EnvironmentFailure, match="the pole broke"):
        write_video(path, broken(), 30)
    assert (path.read_text(), len(list(tmp_path.iterdir()))) == ("old", 1)


def test_a_folder_that_cannot_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_video(tmp_path / "file" / "a.gif", iter([np.zeros((16, 16, 3), np.uint8)]), 30)


def test_what_draws_nothing_is_refused_in_a_line(saved_runs, tmp_path: Path) -> None:
    saved = load_saved(saved_runs["pendulum"], "final")._replace(spec=env_spec("probe_1"))
    for watch in (show, lambda *a: film(*a[:3], tmp_path / "a.gif", None, a[3])):
        with pytest.raises(ConfigError, match=r"^rlexp/Probe1-v0 cannot be watched: it has no render mode; "):
            watch(saved, range(1), "deterministic", lambda n, episode: None)
    assert not (tmp_path / "a.gif").exists()
