"""`rlexp-play` and `rlexp-evaluate --save-episodes`: what they say, and what they refuse."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlexp.cli.evaluate import command as evaluate
from rlexp.cli.play import command as play
from rlexp.data.episodes import load_episodes
from rlexp.errors import ConfigError, RlexpError, StorageError
from rlexp.experiment.saved import evaluate_saved
from rlexp.storage import read_json, write_json
from tests.experiment.support import TINY, run_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    line = [*TINY, "algorithm=value_iteration", "env=frozen_lake", "total_env_steps=300", "env.time_limit=20"]
    return run_in(tmp_path_factory.mktemp("runs"), *line)


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SDL_VIDEODRIVER", "MUJOCO_GL"):
        monkeypatch.setenv(name, "dummy")  # so that what the command sets is undone
        monkeypatch.delenv(name)


def test_a_line_for_each_episode_and_the_video(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    path = tmp_path / "new" / "a.gif"
    assert play([str(run), "--record", str(path), "--episodes", "2", "--first", "3"]) == 0
    seeds, returns, lengths = evaluate_saved(run, "final", 5, None)
    pictures = lengths[3] + lengths[4] + 2
    assert capsys.readouterr() == (
        "".join(f"episode {n}: seed {seeds[n]}, return {returns[n]:g}, length {lengths[n]}\n" for n in (3, 4))
        + f"video: {path} ({pictures} pictures, 4 a second)\n",
        "",
    )
    assert path.is_file()


def test_a_folder_gets_a_video_of_each_episode(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    arguments = ["--episodes", "2", "--fps", "9", "--policy", "sampled", "--weights", "final"]
    assert play([str(run), "--record", str(tmp_path / "videos"), *arguments]) == 0
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["episode_0.mp4", "episode_1.mp4"]
    assert capsys.readouterr().out.count(" pictures, 9 a second)") == 2


def test_an_episode_that_was_measured_otherwise_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL")
    copy, data = shutil.copytree(run, tmp_path / "run"), tmp_path / "data"
    for file in (copy / "evaluations").iterdir():
        held = read_json(file)
        held["episodes"]["return"] = [7.0 for _ in held["episodes"]["return"]]
        write_json(file, held)
    assert evaluate([str(copy), "--episodes", "3", "--save-episodes", str(data)]) == 0
    shown = capsys.readouterr()
    assert re.fullmatch(r"rlexp: \S+: 3 episodes \(0, 1, 2\) came out otherwise .*\n", shown.err)
    assert shown.out.endswith(f" over 3 episodes; {copy}\nsaved 3 episodes, {steps_in(data)} steps: {data}\n")
    assert play([str(copy), "--first", "2", "--record", str(tmp_path / "a.gif")]) == 0
    assert re.fullmatch(r"rlexp: \S+: episode 2 came out otherwise .*\n", capsys.readouterr().err)


def steps_in(folder: Path) -> int:
    return int(load_episodes(folder).length.sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no screen is there (DISPLAY is not set); --record FILE.mp4 or FILE.gif makes a video"),
        (["--fps", "9"], "--fps is for --record; on the screen an environment keeps its own pace"),
        (["--record", "a.avi"], "a.avi: a video ends in .mp4 or .gif"),
        (["--recrod", "a.mp4"], "unrecognized arguments: --recrod a.mp4; see rlexp-play --help"),
        (["--episodes", "0"], "argument --episodes: 0 is not a positive whole number; see rlexp-play --help"),
        (["--first", "-1"], "argument --first: -1 is not a whole number from 0; see rlexp-play --help"),
        (["--first", "a"], "argument --first: a is not a whole number from 0; see rlexp-play --help"),
        (["--weights", "last"], "argument --weights: invalid choice: 'last'"),
    ],
)
def test_what_cannot_be_is_one_line(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        play([str(run), *arguments])


def test_a_library_that_is_missing_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("a.mp4", "a.gif", "folder"):
        with pytest.raises(ConfigError, match=r"is missing; pip install 'rlexp\[video\]'$"):
            play([str(run), "--record", name])


@pytest.mark.parametrize(
    ("folder", "arguments", "error", "message"),
    [
        ("none", [], ConfigError, "none: is not the folder of a run"),
        ("bare", [], StorageError, "bare: has no final weights: "),
        ("bare", ["--weights", "best"], StorageError, "bare: has no best weights: "),
    ],
)
def test_a_folder_that_has_no_policy_is_one_line(
    run: Path, folder: str, arguments: list[str], error: type[RlexpError], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(error, match=message) as raised:
        play([str(tmp_path / folder), "--record", str(tmp_path / "a.gif"), *arguments])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.gif").exists()


@pytest.mark.slow
def test_without_opengl_a_simulator_is_one_line(tmp_path: Path) -> None:
    """Its libraries warn, and complain again when a viewer that could not be made is thrown away."""
    pytest.importorskip("av")
    pytest.importorskip("mujoco")
    hopper = run_in(tmp_path / "runs", *TINY, "env=hopper", "experience.rollout_length=10")
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    for back_end in ("glfw", "nonsense"):
        code = "from rlexp.cli.play import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, str(hopper), "--record", str(tmp_path / "a.mp4")],
            env=environment | {"MUJOCO_GL": back_end},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        assert re.match(r"rlexp: error\[3\]: Hopper-v5.*; try MUJOCO_GL=egl", done.stderr)
