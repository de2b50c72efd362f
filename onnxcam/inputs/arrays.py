"""Files that hold no photograph: arrays (.npy), sounds (.wav) and volumes (NIfTI)."""

from __future__ import annotations

import warnings
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import ImageError, InputArrayError
from onnxcam.imaging.preprocess import Placement
from onnxcam.kernels.space import upsample

SUFFIXES = (".npy", ".wav", ".nii", ".nii.gz")


@dataclass(frozen=True)
class Sound:
    """A sound, ``[channels, samples]`` float32 in -1..1."""

    values: NDArray[np.float32]

    def fitted(
        self, channels: int, space: Sequence[int | None], name: str
    ) -> tuple[NDArray[np.float32], list[Placement]]:
        """Return it as a model takes it: mixed down, its beginning, or silence after its end.

        Raises:
            InputArrayError: the model takes no sounds, or other channels.
        """
        if len(space) != 1:
            raise InputArrayError(f"{name}: a sound, but the model takes images or volumes.")
        values = self.values.mean(axis=0, keepdims=True) if channels == 1 else self.values
        if len(values) != channels:
            raise InputArrayError(
                f"{name}: {len(values)} channel(s), but the model takes {channels}."
            )
        length = values.shape[1]
        wanted = space[0] or length
        if wanted != length:
            what = f"the first {wanted} are taken" if wanted < length else "silence is added"
            warnings.warn(
                f"{name}: {length} samples for a model of {wanted}; {what}.", stacklevel=2
            )
        taken = np.zeros((channels, wanted), np.float32)
        taken[:, :length] = values[:, :wanted]
        return taken, [Placement(length, wanted, 1.0, 0.0)]


@dataclass(frozen=True)
class Volume:
    """A volume, ``[1, D, H, W]`` float32, with its axes as the file has them."""

    values: NDArray[np.float32]

    def fitted(
        self, channels: int, space: Sequence[int | None], name: str
    ) -> tuple[NDArray[np.float32], list[Placement]]:
        """Return it in the model's size, resized linearly.

        Raises:
            InputArrayError: the model takes no volumes, or other channels.
        """
        if len(space) != 3 or channels != 1:
            takes = "images or signals" if len(space) != 3 else f"{channels} channels"
            raise InputArrayError(f"{name}: a volume of one channel, but the model takes {takes}.")
        own = self.values.shape[1:]
        wanted = [w or n for w, n in zip(space, own, strict=True)]
        placed = [Placement(n, w, w / n, 0.0) for n, w in zip(own, wanted, strict=True)]
        if list(own) == wanted:
            return self.values, placed
        axes = [Placement(w, n, n / w, 0.0).axis(n) for n, w in zip(own, wanted, strict=True)]
        return upsample(self.values, axes), placed


def is_array_file(path: Path) -> bool:
    """Whether a file's name says that it holds numbers rather than a photograph."""
    return path.name.lower().endswith(SUFFIXES)


def is_taken_as_it_is(path: Path) -> bool:
    """Whether a file holds no pixels that would be prepared as a photograph's are."""
    if path.suffix.lower() != ".npy":
        return is_array_file(path)
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype != np.uint8)
    except (OSError, ValueError):  # the run will say so
        return False


def read_array(path: Path) -> NDArray[Any] | Sound | Volume:
    """Return what such a file holds.

    Raises:
        ImageError: it is missing or damaged, or what reads it is not installed.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file.")
    name = path.name.lower()
    try:
        if name.endswith(".npy"):
            return np.asarray(np.load(path, allow_pickle=False))
        return _sound(path) if name.endswith(".wav") else _volume(path)
    except ImageError:
        raise
    except Exception as error:  # the readers raise many kinds
        raise ImageError(f"{path}: cannot be read ({error}).") from error


def _sound(path: Path) -> Sound:
    """Read PCM of 8 to 32 bits."""
    with wave.open(str(path)) as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    if width == 1:
        whole = data.astype(np.int64) - 128
    else:  # little-endian; the highest byte has the sign
        parts = data.reshape(-1, width).astype(np.int64)
        whole = (parts << (8 * np.arange(width))).sum(axis=1)
        whole -= (whole >> (8 * width - 1)) << (8 * width)
    if not whole.size:
        raise ImageError(f"{path}: the sound has no samples.")
    values = (whole / (1 << (8 * width - 1))).astype(np.float32)
    return Sound(np.ascontiguousarray(values.reshape(-1, channels).T))


def _volume(path: Path) -> Volume:
    try:
        import nibabel
    except ImportError as error:
        raise ImageError(
            f"{path}: NIfTI files need the extra 'medical': pip install 'onnxcam[medical]'."
        ) from error
    data = np.asarray(nibabel.load(path).get_fdata(dtype=np.float32))
    if data.ndim != 3:
        raise ImageError(f"{path}: has {data.ndim} axes; a volume has three.")
    return Volume(np.ascontiguousarray(data[None]))
