"""Pictures to a video file: MP4 (H.264) by PyAV, GIF by Pillow; the extra `video` brings both."""

import importlib
import importlib.util
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from rlexp.errors import ConfigError
from rlexp.storage import make_directory, written_aside

LIBRARIES = {".mp4": "av", ".gif": "PIL"}
"""What writes a file of an ending."""

GIF_FASTEST = 50  # pictures a second: viewers show a picture for at least 20 ms, or else much longer


def check_video(path: Path) -> None:
    """Raises ConfigError where a file of that name cannot be written."""
    library = LIBRARIES.get(path.suffix.lower())
    if library is None:
        raise ConfigError(f"{path}: a video ends in {' or '.join(LIBRARIES)}")
    if importlib.util.find_spec(library) is None:
        raise ConfigError(f"{path}: what writes {path.suffix} is missing; pip install 'rlexp[video]'")


def write_video(path: Path, pictures: Iterator[np.ndarray], fps: float) -> int:
    """Write a file, all or nothing; what lay there is replaced. Returns the number of pictures.

    pictures: at least one, [H, W, 3] uint8, all of one size; taken one by one.
    Raises StorageError where it cannot be written.
    """
    count = itertools.count()
    counted = (picture for picture, _ in zip(pictures, count, strict=False))
    make_directory(path.absolute().parent)
    with written_aside(path) as file:
        (_write_mp4 if path.suffix.lower() == ".mp4" else _write_gif)(file, counted, fps)
    return next(count)


def _write_mp4(file: IO[bytes], pictures: Iterator[np.ndarray], fps: float) -> None:
    av: Any = importlib.import_module("av")
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"  # the one that every player knows
        for number, picture in enumerate(pictures):
            even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]  # it halves the colours' size
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        container.mux(stream.encode(None))  # what the encoder still holds


def _write_gif(file: IO[bytes], pictures: Iterator[np.ndarray], fps: float) -> None:
    image: Any = importlib.import_module("PIL.Image")
    every = math.ceil(fps / GIF_FASTEST)
    images = (image.fromarray(picture) for picture in itertools.islice(pictures, 0, None, every))
    first = next(images)
    duration = round(1000 * every / fps)  # ms
    first.save(file, format="GIF", save_all=True, append_images=images, duration=duration, loop=0)
