"""`rlexp-play RUN`: watch the policy of a saved run on the screen, or record a video of it.

The episodes are those that rlexp-evaluate counts, so what is seen is what was measured.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlexp.cli.common import Parser, add_policy_of_a_run, changed_line, guarded, positive
from rlexp.errors import ConfigError
from rlexp.experiment.video import check_video

if TYPE_CHECKING:
    from rlexp.envs.vector import Episode
    from rlexp.experiment.saved import Saved


def main() -> None:
    """The console script."""
    warnings.filterwarnings("ignore", module="glfw")  # what it warns of is said by the error that follows
    sys.unraisablehook = lambda _: None  # so does a viewer that could not be made, when it is thrown away
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """Play one run's policy; raises RlexpError for what a person must know."""
    parser = Parser(prog="rlexp-play", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_policy_of_a_run(parser)
    parser.add_argument("--episodes", type=positive, default=1, help="how many (1)")
    parser.add_argument("--first", type=_natural, default=0, metavar="N", help="number of the first one (0)")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="PATH",
        help="a video instead of the screen: FILE.mp4 or FILE.gif, or a folder for an MP4 of each episode",
    )
    parser.add_argument("--fps", type=positive, help="of the video, pictures a second (as the environment says)")
    options = parser.parse_args(list(arguments))
    numbers = range(options.first, options.first + options.episodes)
    if options.record is not None:
        check_video(_videos(options.record, numbers)[0][0])  # before anything is loaded
        _draw_off_screen()
    elif options.fps is not None:
        raise ConfigError("--fps is for --record; on the screen an environment keeps its own pace")
    elif not _has_screen():
        raise ConfigError("no screen is there (DISPLAY is not set); --record FILE.mp4 or FILE.gif makes a video")
    from rlexp.experiment.saved import load_saved

    saved = load_saved(options.run, options.weights, options.plugin, options.device)
    policy = options.policy or saved.config["evaluation"]["policy"]
    _watch(saved, numbers, policy, options.record, options.fps)
    return 0


def _watch(saved: "Saved", numbers: range, policy: str, record: Path | None, fps: float | None) -> None:
    """A line for each episode and each video; one more where an episode is not what was measured."""
    from rlexp.experiment.evaluator import Result
    from rlexp.experiment.watching import film, show

    played = Result([], [], [])

    def each(n: int, episode: "Episode") -> None:
        played.add(episode)
        _say(f"episode {n}: seed {episode.seed}, return {episode.episode_return:.6g}, length {episode.length}")

    if record is None:
        show(saved, numbers, policy, each)
    else:
        for path, of_it in _videos(record, numbers):
            count, shown = film(saved, of_it, policy, path, fps, each)
            _say(f"video: {path} ({count} pictures, {shown:g} a second)")
    known = saved.evaluator.known(saved.weights, saved.progress, policy).part(numbers)
    changed = played.changed(known, numbers.start)
    if changed:
        sys.stderr.write(changed_line(saved.run, changed))


def _videos(record: Path, numbers: range) -> list[tuple[Path, range]]:
    """The files to make, and the episodes of each."""
    if record.suffix and not record.is_dir():
        return [(record, numbers)]
    return [(record / f"episode_{n}.mp4", range(n, n + 1)) for n in numbers]


def _has_screen() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _draw_off_screen() -> None:
    """No window is to be opened for a video. Both are read when the library is imported; what the user set stays."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if not _has_screen():
        os.environ.setdefault("MUJOCO_GL", "egl")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)
