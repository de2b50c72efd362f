"""Turn photographs and ready arrays into the model's image input."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.errors import InputArrayError, PreprocessError
from onnxcam.imaging.decode import Limits, decode
from onnxcam.imaging.preprocess import Geometry, Preprocess
from onnxcam.surgeon.plan import ImageInput

ImageLike = str | Path | Image.Image | bytes | BinaryIO | NDArray[Any]


class Item(NamedTuple):
    """What is kept of an image besides its tensor."""

    geometry: Geometry
    photo: NDArray[np.uint8] | None
    source: str | None


class Inputs:
    """Prepares images for one model."""

    def __init__(self, takes: ImageInput, path: Path, limits: Limits | None = None) -> None:
        """Take the model's image input, its file for messages, and the range of deep greys."""
        self._takes, self._path, self._limits = takes, path, limits
        sizes = (takes.height, takes.width)
        channels_last = takes.layout == "NHWC"
        self._shape = (*sizes, takes.channels) if channels_last else (takes.channels, *sizes)
        self._dtype = np.dtype(takes.dtype)

    def prepare(self, image: ImageLike, preprocess: Preprocess | None) -> tuple[NDArray[Any], Item]:
        """Return one image as ``[1, ...]``, and what is kept of it.

        Raises:
            PreprocessError: the image is a photograph, which the model does not take.
            ImageError: the photograph cannot be decoded.
            InputArrayError: the model does not take this array.
        """
        takes = self._takes
        if isinstance(image, np.ndarray):
            tensor = self.check(image)
            return tensor, self.ready(tensor)
        if preprocess is None:
            raise PreprocessError(
                f"{self._path}: '{takes.name}' takes {takes.channels} channels, which no "
                "photograph has; pass ready arrays."
            )
        photo = decode(image, self._limits)
        tensor, geometry = preprocess.apply(photo, takes.layout, takes.dtype)
        source = str(image) if isinstance(image, (str, Path)) else None
        return tensor, Item(geometry, photo, source)

    def ready(self, tensor: NDArray[Any]) -> Item:
        """Return what is kept of each image of a ready array."""
        height, width = tensor.shape[2:] if self._takes.layout == "NCHW" else tensor.shape[1:3]
        return Item(Geometry.identity(height, width), None, None)

    def check(self, array: NDArray[Any], batch: bool = False) -> NDArray[Any]:
        """Return a ready array as ``[N, ...]``; a single image may lack the first axis.

        Raises:
            InputArrayError: the model takes another shape or dtype.
        """
        if (
            array.dtype == self._dtype
            and array.shape[1:] == self._shape
            and (batch or array.ndim == 4)
        ):
            return array
        takes = self._takes
        tensor = array if array.ndim == 4 or batch else array[None]
        fits = tensor.ndim == 4 and all(
            e in (None, n) for e, n in zip(self._shape, tensor.shape[1:], strict=True)
        )
        if not fits or 0 in tensor.shape[1:]:
            expected = [n or axis for n, axis in zip(self._shape, takes.layout[1:], strict=True)]
            shape = ", ".join(map(str, ("N", *expected) if batch else expected))
            way_out = "" if batch else ", with or without a leading 1"
            raise InputArrayError(
                f"array of shape {list(array.shape)}: '{takes.name}' takes [{shape}]{way_out}."
            )
        if str(array.dtype) != takes.dtype:
            raise InputArrayError(
                f"array of dtype {array.dtype}: '{takes.name}' takes {takes.dtype}. "
                f"Convert it with .astype('{takes.dtype}')."
            )
        return tensor
