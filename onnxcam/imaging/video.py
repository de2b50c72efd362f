"""Short videos, read by PyAV (the extra ``video``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from onnxcam.errors import ImageError

SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"}
STEP = 100  # milliseconds from one frame that is taken to the next, at least
MOST_PIXELS = 500_000_000  # of all frames: the pictures made of them are held until written


@dataclass(frozen=True)
class Video:
    """A video; ten frames a second are taken of it, or all where it has fewer.

    Attributes:
        path: its file.
        count: how many frames are taken, which is not known before.
        loop: of the GIF that is made of it: repeated for ever.
    """

    path: Path
    count: None = None
    loop: int = 0

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        """Yield each frame that is taken, upright, and how many milliseconds it stays.

        Raises:
            ImageError: PyAV is not installed, the file is no video, or it is too long.
        """
        try:
            import av
        except ImportError as error:
            raise ImageError(
                f"{self.path}: videos need PyAV: pip install 'onnxcam[video]'."
            ) from error
        try:
            with av.open(str(self.path)) as container:
                yield from self._taken(container)
        except (av.FFmpegError, IndexError) as error:
            raise ImageError(f"{self.path}: cannot be decoded as a video ({error}).") from error

    def _taken(self, container: Any) -> Iterator[tuple[Image.Image, int]]:
        waiting: Image.Image | None = None
        began = pixels = 0
        last = STEP
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            time = round(1000 * frame.time) if frame.time is not None else STEP * number
            if waiting is not None and time - began < STEP:
                continue
            if waiting is not None:
                last = time - began
                yield waiting, last
            began = time
            waiting = frame.to_image().rotate(frame.rotation, expand=True)
            pixels += waiting.width * waiting.height
            if pixels > MOST_PIXELS:
                raise ImageError(
                    f"{self.path}: {time / 1000:.1f} seconds of {waiting.width}x{waiting.height} "
                    f"are more than {MOST_PIXELS:,} pixels, ten frames a second. Make it shorter "
                    "or smaller."
                )
        if waiting is None:
            raise ImageError(f"{self.path}: a video without frames.")
        yield waiting, last
