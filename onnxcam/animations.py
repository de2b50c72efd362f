"""Explain an animated GIF or a video frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.errors import NotFiniteError, naming
from onnxcam.explanation import Explanation
from onnxcam.files import write_atomically
from onnxcam.imaging.frames import Frames, quantized, write_gif
from onnxcam.imaging.style import USUAL, Style
from onnxcam.imaging.video import Video

_VARYING = ("target", "label", "score", "rank", "peak", "note", "detection")
_ARRAYS = ("raw", "signed", "heatmap", "visible")


@dataclass
class Animation:
    """One layer, method and target of a GIF, over its frames.

    Attributes:
        first: the explanation of the first frame that has one.
        pictures: the overlays, with palettes; of frames without an explanation the frame itself.
        durations: how many milliseconds each stays, the same list for every animation of a GIF.
        records: of each frame, what varies over frames, and ``frame``, counted from 0.
        arrays: the maps of each frame that has one; empty unless they are wanted.
        loop: how often the GIF is repeated.
    """

    first: Explanation
    pictures: list[Image.Image]
    durations: list[int]
    loop: int | None
    records: list[dict[str, Any]] = field(default_factory=list)
    arrays: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """What is explained, and in how many frames, the most frequent first."""
        names = (str(r["target"] if r["label"] is None else r["label"]) for r in self.records)
        return Counter(names).most_common()

    def add(self, explanation: Explanation, keep_arrays: bool, style: Style) -> None:
        """Append the next frame."""
        record = explanation.to_dict()
        varying = {key: record[key] for key in _VARYING if key in record}
        self.records.append({"frame": len(self.pictures), **varying})
        self.pictures.append(quantized(explanation.overlay(style)))
        if keep_arrays:
            self.arrays.append({name: getattr(explanation, name) for name in _ARRAYS})

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the first frame, with those of all as ``frames``."""
        return {**self.first.to_dict(), "frames": self.records}

    def save(self, path: Path) -> Path:
        """Write the pictures as .gif, or the maps ``[frames, ...]`` as .npz.

        Raises:
            OutputError: the place cannot be written.
        """

        def write(file: BinaryIO) -> None:
            if path.suffix == ".gif":
                write_gif(file, self.pictures, self.durations, self.loop)
            else:
                stacked: dict[str, Any] = {
                    name: np.stack([a[name] for a in self.arrays]) for name in _ARRAYS
                }
                frames = np.array([r["frame"] for r in self.records])
                np.savez_compressed(file, frame=frames, **stacked)

        return write_atomically(path, write)


def explain_frames(
    explain: Callable[[Image.Image], Sequence[Explanation]],
    frames: Frames | Video,
    keep_arrays: bool,
    style: Style = USUAL,
) -> list[Animation]:
    """Explain every frame of an animated GIF or a video by itself.

    Args:
        explain: returns the explanations of one image, in the same order for each.
        frames: the GIF or video.
        keep_arrays: whether the maps are wanted.
        style: how the pictures look.

    Returns:
        One animation for each place in that order. Frames may have fewer explanations than others,
        those of a detector one for each box: they then show the frame as it is.

    Raises:
        ImageError: a frame cannot be decoded.
        NotFiniteError: as explaining an image; the message names the frame.
    """
    found: list[Animation] = []
    plain: list[Image.Image] = []
    durations: list[int] = []
    for number, (frame, duration) in enumerate(frames):
        with naming(f"frame {number + 1}", NotFiniteError):
            explanations = explain(frame)
        plain.append(quantized(frame))
        durations.append(duration)
        for place, explanation in enumerate(explanations):
            if place == len(found):
                first = replace(explanation, source=str(frames.path))
                found.append(Animation(first, plain[:-1], durations, frames.loop))
            found[place].add(explanation, keep_arrays, style)
        for animation in found[len(explanations) :]:
            animation.pictures.append(plain[-1])
    return found
