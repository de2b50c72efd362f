"""Animated pictures: frames of GIFs and videos in, GIFs out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from onnxcam.errors import ImageError
from onnxcam.imaging.video import MOST_PIXELS, SUFFIXES, Video

_USUAL = 100  # milliseconds, what browsers take where a file says 0


@dataclass(frozen=True)
class Frames:
    """An animated GIF.

    Attributes:
        path: its file.
        count: the number of frames, 2 or more.
        loop: how often it is repeated, 0 for ever, ``None`` for once.
    """

    path: Path
    count: int
    loop: int | None

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        """Yield each frame as it is seen, and how many milliseconds it stays.

        Raises:
            ImageError: a frame cannot be decoded.
        """
        with _opened(self.path) as image:
            for number in range(self.count):
                try:
                    image.seek(number)
                    frame = image.copy()
                except Exception as error:  # decoders raise many kinds
                    raise ImageError(
                        f"{self.path}: frame {number + 1} of {self.count} cannot be decoded "
                        f"({error}). Is the file cut short?"
                    ) from error
                yield frame, int(image.info.get("duration", 0)) or _USUAL


def read_frames(path: Path) -> Frames | Video | None:
    """Return the frames of an animated GIF or a video; ``None`` for pictures.

    Raises:
        ImageError: all frames together have too many pixels.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return Video(path)
    if path.suffix.lower() != ".gif":
        return None
    try:
        with _opened(path) as image:
            count = int(getattr(image, "n_frames", 1))
            size, loop = image.size, image.info.get("loop")
    except Exception:  # what is wrong is told where it is decoded as a photograph
        return None
    if count < 2:
        return None
    if count * size[0] * size[1] > MOST_PIXELS:
        raise ImageError(
            f"{path}: {count} frames of {size[0]}x{size[1]} are more than {MOST_PIXELS:,} pixels. "
            "Make it shorter or smaller."
        )
    return Frames(path, count, loop)


def quantized(picture: Image.Image) -> Image.Image:
    """Return a picture with a palette of its own, as a GIF stores it."""
    return picture.convert("RGB").quantize(256)


def write_gif(
    file: BinaryIO, pictures: Sequence[Image.Image], durations: Sequence[int], loop: int | None
) -> None:
    """Write pictures as one animated GIF, each for so many milliseconds.

    Smaller ones, where sizes differ, lie in the upper left corner.
    """
    size = (max(p.width for p in pictures), max(p.height for p in pictures))
    padded = [p if p.size == size else _padded(p, size) for p in pictures]
    again = {} if loop is None else {"loop": loop}
    padded[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=padded[1:],
        duration=list(durations),
        optimize=False,
        **again,
    )


def _padded(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, "white")
    canvas.paste(picture.convert("RGB"))
    return quantized(canvas)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():  # Pillow only warns of pictures above its limit
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(path)
    with image:
        yield image
