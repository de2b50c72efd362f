"""From a photograph to the input tensor, and where every pixel lies in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.errors import PreprocessError, nearest
from onnxcam.kernels.view import Axis, View

Resize = Literal["squash", "shorter", "letterbox"]
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
_COLOURS = ("RGB", "BGR", "grey")
_VAST = 16  # times the input's size


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes the input: ``(pixel / divide - mean) / std``.

    Attributes:
        color: ``RGB``, ``BGR`` or ``grey``; ``mean`` and ``std`` are in this order.
        resize: ``squash``: stretch to the size; ``shorter``: resize the shorter side to ``shorter``
            pixels, then crop the centre; ``letterbox``: fit inside and pad with ``pad``.
        size: height and width of the input; ``None``: the model's.
        shorter: for ``resize = "shorter"``; ``None``: the shorter side of the size. With
            ``"squash"`` the photograph is stretched until its shorter side has this length, then
            the centre is cropped.
        interpolation: nearest, bilinear, bicubic, lanczos or box (Pillow's, antialiased).
        divide: pixels are 0..255 before this division.
        mean: one number, or one for each channel.
        std: likewise.
        pad: grey level or colour of letterbox borders, 0..255.
    """

    color: str = "RGB"
    resize: Resize = "squash"
    size: tuple[int, int] | None = None
    shorter: int | None = None
    interpolation: str = "bilinear"
    divide: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pad: tuple[int, ...] = (114,)

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str) -> Preprocess:
        """Build from a card's table.

        Raises:
            PreprocessError: unknown keys or values; ``where`` names the card.
        """
        fields = {f.name for f in dataclasses.fields(Preprocess)}
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key not in fields:
                raise PreprocessError(f"{where}: unknown key '{key}'.{nearest(key, fields)}")
            values[key] = value
        try:
            for key in ("mean", "std"):
                if key in values:
                    values[key] = tuple(float(v) for v in _listed(values[key]))
            if "pad" in values:
                values["pad"] = tuple(int(v) for v in _listed(values["pad"]))
            if "divide" in values:
                values["divide"] = float(values["divide"])
            if values.get("shorter") is not None:
                values["shorter"] = int(values["shorter"])
            for key in ("color", "resize", "interpolation"):
                if not isinstance(values.get(key, ""), str):
                    raise ValueError(f"{key} must be a word")
            if values.get("size") is not None:
                height, width = _listed(values["size"], 2)
                values["size"] = (int(height), int(width))
            made = Preprocess(**values)
        except PreprocessError as error:
            raise PreprocessError(f"{where}: {error}") from error
        except (TypeError, ValueError) as error:
            raise PreprocessError(f"{where}: {error}.") from error
        return made

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        channels = 1 if self.color == "grey" else 3
        checks = {
            f"color = '{self.color}' is none of {', '.join(_COLOURS)}": self.color in _COLOURS,
            f"resize = '{self.resize}' is none of squash, shorter, letterbox": self.resize
            in ("squash", "shorter", "letterbox"),
            f"interpolation = '{self.interpolation}' is none of {', '.join(_FILTERS)}": (
                self.interpolation in _FILTERS
            ),
            f"mean needs 1 or {channels} numbers": len(self.mean) in (1, channels),
            f"std needs 1 or {channels} numbers": len(self.std) in (1, channels),
            "std and divide must not be 0": 0 not in (*self.std, self.divide),
            "pad needs 1 or 3 numbers": len(self.pad) in (1, 3),
            "size must be positive": self.size is None or min(self.size) > 0,
            "shorter must be positive": self.shorter is None or self.shorter > 0,
            "pad must be 0 to 255": all(0 <= p <= 255 for p in self.pad),
            "mean, std and divide must be finite": all(
                math.isfinite(v) for v in (*self.mean, *self.std, self.divide)
            ),
        }
        for message, good in checks.items():
            if not good:
                raise PreprocessError(f"{message}.")

    def apply(
        self, photo: NDArray[np.uint8], layout: str, dtype: str
    ) -> tuple[NDArray[Any], Geometry]:
        """Return the input tensor ``[1, ...]`` and where the photograph lies in it.

        Args:
            photo: ``[H, W, 3]`` uint8 RGB.
            layout: ``NCHW`` or ``NHWC``.
            dtype: NumPy's name of the input's dtype.
        """
        assert self.size is not None
        image, geometry = self._fit(Image.fromarray(photo), self.size)
        pixels = np.asarray(image.convert("L") if self.color == "grey" else image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if self.color == "BGR":
            pixels = pixels[..., ::-1]
        if layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        if np.dtype(dtype).kind in "ui" and self._keeps_pixels:
            return np.ascontiguousarray(pixels[None]).astype(dtype), geometry
        shape = (-1, 1, 1) if layout == "NCHW" else (1, 1, -1)
        scale = np.float32(1) / (np.float32(self.divide) * np.array(self.std, np.float32))
        shift = np.array(self.mean, np.float32) / np.array(self.std, np.float32)
        values = pixels * scale.reshape(shape) - shift.reshape(shape)
        if np.dtype(dtype).kind in "ui":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.ascontiguousarray(values[None], dtype), geometry

    @property
    def _keeps_pixels(self) -> bool:
        return self.divide == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}

    def _fit(self, image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Geometry]:
        height, width = size
        full_height, full_width = image.height, image.width
        if self.resize == "squash":
            grown = (self.shorter or min(size)) / min(size)
            new_height, new_width = round(height * grown), round(width * grown)
        elif self.resize == "letterbox":
            over, under = min(((height, full_height), (width, full_width)), key=_quotient)
            new_height = min(height, max(1, round(full_height * over / under)))
            new_width = min(width, max(1, round(full_width * over / under)))
        else:
            shorter = max(self.shorter or 0, 1) if self.shorter else min(size)
            least = (shorter, min(full_height, full_width))
            over, under = max(least, (height, full_height), (width, full_width), key=_quotient)
            new_height = max(height, full_height * over // under)
            new_width = max(width, full_width * over // under)
        top, left = round((height - new_height) / 2), round((width - new_width) / 2)
        geometry = Geometry(
            rows=Placement(full_height, height, new_height / full_height, float(top)),
            columns=Placement(full_width, width, new_width / full_width, float(left)),
        )
        filter_ = _FILTERS[self.interpolation]
        if new_height * new_width > _VAST * height * width:
            # A panorama: to enlarge all of it and crop a little would fill the memory.
            rows, columns = geometry.rows, geometry.columns
            box = (
                -left / columns.scale,
                -top / rows.scale,
                (width - left) / columns.scale,
                (height - top) / rows.scale,
            )
            return image.resize((width, height), filter_, box=box), geometry
        resized = image.resize((new_width, new_height), filter_)
        if (new_height, new_width) == (height, width):
            return resized, geometry
        pad = self.pad if len(self.pad) == 3 else self.pad * 3
        canvas = Image.new("RGB", (width, height), (pad[0], pad[1], pad[2]))
        canvas.paste(resized, (left, top))
        return canvas, geometry


def _quotient(fraction: tuple[int, int]) -> float:
    return fraction[0] / fraction[1]


def _listed(value: Any, count: int | None = None) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if count is not None and len(values) == 1 else values


@dataclass(frozen=True)
class Placement:
    """One axis: the photograph's point ``x`` lies at ``x * scale + offset`` of the input."""

    photo: int
    input: int
    scale: float
    offset: float

    def axis(self, length: int) -> Axis:
        """Return where a map of ``length`` elements over the whole input lies on the photo."""
        elements = length / self.input
        # A pixel is visible when its centre lies inside the input.
        centres = (np.arange(self.photo) + 0.5) * self.scale + self.offset
        visible = np.flatnonzero((centres >= 0) & (centres <= self.input))
        if visible.size:
            first, last = int(visible[0]), int(visible[-1]) + 1
        else:  # the network saw less than a pixel: show the pixel around that
            middle = (self.input / 2 - self.offset) / self.scale
            first = min(max(int(middle), 0), self.photo - 1)
            last = first + 1
        return Axis(self.photo, self.scale * elements, self.offset * elements, first, last)

    def element(self, x: int, length: int) -> int | None:
        """Return which of ``length`` elements holds the centre of a pixel of the photograph.

        ``None`` where the pixel is not in the photograph, or the input does not hold it.
        """
        centre = (x + 0.5) * self.scale + self.offset
        inside = 0 <= x < self.photo and 0 <= centre < self.input
        return min(int(centre * length / self.input), length - 1) if inside else None

    def coverage(self, lines: NDArray[Any], length: int) -> NDArray[np.float64]:
        """Return the part of each element that lines cover, ``[photo, ...]`` to ``[length, ...]``.

        It is exact: the integral of the photograph's pixels between the edges of the element.
        """
        edges = (np.arange(length + 1) * (self.input / length) - self.offset) / self.scale
        edges = np.clip(edges, 0, self.photo)
        whole = np.minimum(edges.astype(np.int64), self.photo - 1)
        below = np.zeros((self.photo + 1, *lines.shape[1:]))
        np.cumsum(lines, axis=0, out=below[1:])
        part = (edges - whole).reshape(-1, *[1] * (lines.ndim - 1))
        inside: NDArray[np.float64] = np.diff(below[whole] + part * lines[whole], axis=0)
        return inside * (self.scale * length / self.input)


@dataclass(frozen=True)
class Geometry:
    """Where a photograph, signal or volume lies in the input tensor.

    Attributes:
        rows: of photographs and volumes; of a signal, which is one row, the whole.
        columns: of all; a signal's places.
        depth: a volume's slices.
        signal: whether there are no rows.
    """

    rows: Placement
    columns: Placement
    depth: Placement | None = None
    signal: bool = False

    @staticmethod
    @cache
    def identity(*space: int) -> Geometry:
        """Return the geometry of a ready array of one to three axes, which is its own picture."""
        return Geometry.of([Placement(n, n, 1.0, 0.0) for n in space])

    @staticmethod
    def of(placements: Sequence[Placement]) -> Geometry:
        """Return the geometry of one to three axes."""
        *others, columns = placements
        rows = others[-1] if others else Placement(1, 1, 1.0, 0.0)
        return Geometry(rows, columns, others[0] if len(others) > 1 else None, not others)

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The placement of every spatial axis, in order."""
        if self.signal:
            return (self.columns,)
        plane = (self.rows, self.columns)
        return plane if self.depth is None else (self.depth, *plane)

    def axes(self, shape: Sequence[int]) -> list[Axis]:
        """Return where a map of this shape lies, axis by axis."""
        return [p.axis(n) for p, n in zip(self.placements, shape, strict=True)]

    def view(self, height: int, width: int) -> View:
        """Return where a map of ``height`` by ``width`` elements lies on the photograph."""
        return View(self.rows.axis(height), self.columns.axis(width))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""
        return self.rows.photo, self.columns.photo

    def element(self, x: int, y: int, height: int, width: int) -> tuple[int, int] | None:
        """Return row and column of the element of a map that a pixel's centre lies in.

        ``None`` where the pixel lies outside the photograph, or outside what the network saw.
        """
        row, column = self.rows.element(y, height), self.columns.element(x, width)
        return None if row is None or column is None else (row, column)

    def coverage(self, mask: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
        """Return how much of each element a mask ``[H, W]`` of the photograph covers, 0 to 1."""
        rows = self.rows.coverage(mask, height)
        return self.columns.coverage(rows.T, width).T

    def seen(self) -> tuple[range, range]:
        """Return the rows and columns of the photograph that the network saw."""
        rows, columns = self.rows.axis(1), self.columns.axis(1)
        return range(rows.first, rows.last), range(columns.first, columns.last)
