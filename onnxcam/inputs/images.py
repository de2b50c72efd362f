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
from onnxcam.inputs.arrays import is_array_file, read_array
from onnxcam.surgeon.plan import ImageInput

ImageLike = str | Path | Image.Image | bytes | BinaryIO | NDArray[Any]


class Item(NamedTuple):
    """What is kept of an image besides its tensor.

    Attributes:
        geometry: where it lies in the tensor.
        photo: the photograph, ``[H, W, 3]``.
        source: its name.
        given: the signal, volume or array, ``[C, *S]``, in its own size; ``None`` where it is what
            the tensor holds.
    """

    geometry: Geometry
    photo: NDArray[np.uint8] | None
    source: str | None
    given: NDArray[Any] | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input for one of the photograph, along rows and columns."""
        return self.geometry.rows.scale, self.geometry.columns.scale


class Inputs:
    """Prepares images, signals and volumes for one model."""

    def __init__(self, takes: ImageInput, path: Path, limits: Limits | None = None) -> None:
        """Take the model's image input, its file for messages, and the range of deep greys."""
        self._takes, self._path, self._limits = takes, path, limits
        self._dtype = np.dtype(takes.dtype)

    def prepare(self, image: ImageLike, preprocess: Preprocess | None) -> tuple[NDArray[Any], Item]:
        """Return one image as ``[1, ...]``, and what is kept of it.

        Raises:
            PreprocessError: the image is a photograph, which the model does not take.
            ImageError: the file cannot be read.
            InputArrayError: the model does not take this array.
        """
        takes = self._takes
        if isinstance(image, (str, Path)) and is_array_file(Path(image)):
            return self._from_file(Path(image), preprocess)
        if isinstance(image, np.ndarray) and not self.is_photograph(image):
            tensor = self.check(image)
            return tensor, self.ready(tensor)
        if preprocess is None:
            raise PreprocessError(self._no_photographs())
        photo = decode(
            Image.fromarray(image) if isinstance(image, np.ndarray) else image, self._limits
        )
        last = takes.layout.endswith("C")
        tensor, geometry = preprocess.apply(photo, "NHWC" if last else "NCHW", takes.dtype)
        if "C" not in takes.layout:
            tensor = np.ascontiguousarray(takes.as_taken(tensor))
        source = str(image) if isinstance(image, (str, Path)) else None
        return tensor, Item(geometry, photo, source)

    def ready(self, tensor: NDArray[Any]) -> Item:
        """Return what is kept of each image of a ready array."""
        space = self._takes.channels_first(tensor).shape[2:]
        return Item(Geometry.identity(*space), None, None)

    def is_photograph(self, array: NDArray[Any]) -> bool:
        """Whether an array holds 8-bit pixels, ``[H, W, 3]`` or ``[H, W]``, to be prepared."""
        pixels = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        fits = self._dtype == np.uint8 and self._takes.takes(array.shape)
        return array.dtype == np.uint8 and pixels and self._takes.axes == "HW" and not fits

    def check(self, array: NDArray[Any], batch: bool = False) -> NDArray[Any]:
        """Return a ready array as ``[N, ...]``; a single image may lack the first axis.

        Raises:
            InputArrayError: the model takes another shape or dtype.
        """
        takes = self._takes
        rank = len(takes.layout)
        tensor = array if array.ndim == rank or batch else array[None]
        if tensor.ndim != rank or not takes.takes(tensor.shape[1:]) or 0 in tensor.shape[1:]:
            letters = takes.layout[1:]
            expected = [n or axis for n, axis in zip(takes.shape, letters, strict=True)]
            shape = ", ".join(map(str, ("N", *expected) if batch else expected))
            way_out = "" if batch else ", with or without a leading 1"
            raise InputArrayError(
                f"array of shape {list(array.shape)}: '{takes.name}' takes [{shape}]{way_out}."
            )
        if array.dtype != self._dtype:
            raise InputArrayError(
                f"array of dtype {array.dtype}: '{takes.name}' takes {takes.dtype}. "
                f"Convert it with .astype('{takes.dtype}')."
            )
        return tensor

    def _from_file(self, path: Path, preprocess: Preprocess | None) -> tuple[NDArray[Any], Item]:
        """Return what a file of numbers, a sound or a volume holds."""
        takes = self._takes
        array = read_array(path)
        if isinstance(array, np.ndarray):
            if self.is_photograph(array):
                tensor, item = self.prepare(array, preprocess)
                return tensor, item._replace(source=str(path))
            if array.dtype.kind == self._dtype.kind == "f":
                array = array.astype(self._dtype)  # float64 is what many programs write
            try:
                tensor = self.check(array)
            except InputArrayError as error:
                raise InputArrayError(f"{path}: {error}") from error
            if len(tensor) != 1:
                raise InputArrayError(f"{path}: holds {len(tensor)} images; give one a file.")
            return tensor, self.ready(tensor)._replace(source=str(path))
        given, placements = array.fitted(takes.channels, takes.space, str(path))
        tensor = np.ascontiguousarray(takes.as_taken(given[None]), self._dtype)
        item = Item(Geometry.of(placements), None, str(path), array.values)
        return tensor, item

    def _no_photographs(self) -> str:
        takes = self._takes
        if takes.axes == "HW":
            return (
                f"{self._path}: '{takes.name}' takes {takes.channels} channels, which no "
                "photograph has; give ready arrays, in Python or as a .npy file."
            )
        files = "a .npy or .wav file" if takes.axes == "W" else "a .npy or NIfTI file"
        shape = [n or axis for n, axis in zip(takes.shape, takes.layout[1:], strict=True)]
        return (
            f"{self._path}: '{takes.name}' takes {takes.kind}s [{', '.join(map(str, shape))}], no "
            f"photographs. Give {files}, or arrays in Python."
        )
