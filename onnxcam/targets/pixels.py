"""Scores of pixels over a mask or at a point of the photograph: ``region:CLASS@X,Y``.

Masks and points are in the photograph's own pixels. Where these lie in the tensor is told by the
image's geometry, which :meth:`located` receives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError
from onnxcam.targets.weighted import DENSE, Region, WeightedTarget, Weights, call

Array = NDArray[Any]
_REGION = "region:"
_POINT = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")


class Geometry(Protocol):
    """Where a photograph lies in a tensor of ``height`` by ``width`` over the whole input."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""

    def element(self, x: int, y: int, height: int, width: int) -> tuple[int, int] | None:
        """Return row and column of the element that a pixel's centre lies in."""

    def coverage(self, mask: Array, height: int, width: int) -> Array:
        """Return how much of each element a mask of the photograph covers, ``[height, width]``."""

    def seen(self) -> tuple[range, range]:
        """Return the rows and columns of the photograph that the network saw."""


Self = TypeVar("Self", bound="_InPhotograph")


@dataclass(frozen=True, eq=False)
class _InPhotograph:
    """What needs to know where the photograph lies."""

    geometry: Geometry | None = field(default=None, kw_only=True)
    tensor: str = field(default=DENSE, kw_only=True)
    linear: bool = field(default=True, kw_only=True)

    def located(self: Self, geometry: Geometry) -> Self:
        """Return the same target on an image of this geometry."""
        return replace(self, geometry=geometry)


@dataclass(frozen=True, eq=False)
class Masked(_InPhotograph):
    """The sum of a class's scores over a mask: Vinogradova et al. 2020 (Seg-Grad-CAM), eq. 2.

    An element of the tensor that the mask covers in part counts in part.

    Attributes:
        mask: ``[H, W]`` of the photograph's size (of a ready array's, where that is explained); in
            the mask is what is not 0.
        index: the class.
        text: what it is called in records.
    """

    mask: Array
    index: int
    text: str = "region"

    def __str__(self) -> str:
        return self.text

    def weigh(self, values: Array) -> Weights:
        """Return for the class's scores how much of each the mask covers."""
        assert self.geometry is not None
        _check_class(self.text, self.index, values)
        mask = np.asarray(self.mask) != 0
        if mask.shape != self.geometry.size:
            raise TargetError(
                f"target '{self.text}': the mask has shape {list(mask.shape)}, the image "
                f"{list(self.geometry.size)} (height, width); they must be equal."
            )
        covered = self.geometry.coverage(mask, *values.shape[1:])
        if not covered.any():
            where = f"what the network saw, {_seen(self.geometry)}" if mask.any() else "the image"
            raise TargetError(f"target '{self.text}': the mask holds no pixel of {where}.")
        weights = np.zeros(values.shape)
        weights[self.index] = covered
        return Weights(weights, float((covered * values[self.index]).sum()))


@dataclass(frozen=True, eq=False)
class AtPixel(_InPhotograph):
    """A class's score at a pixel of the photograph; without a class, that of the one predicted."""

    x: int
    y: int
    index: int | None = None
    text: str = "region"
    labels: Sequence[str] | None = None

    def __str__(self) -> str:
        return self.text

    def weigh(self, values: Array) -> Weights:
        """Return 1 for the score there."""
        assert self.geometry is not None
        height, width = self.geometry.size
        if self.x >= width or self.y >= height:
            raise TargetError(
                f"target '{self.text}': the image is {width} pixels wide and {height} high; "
                f"X counts from 0 to {width - 1}, Y from 0 to {height - 1}."
            )
        place = self.geometry.element(self.x, self.y, *values.shape[1:])
        if place is None:
            raise TargetError(
                f"target '{self.text}': the pixel lies outside what the network saw, "
                f"{_seen(self.geometry)}. Choose one inside."
            )
        index = int(values[:, *place].argmax()) if self.index is None else self.index
        _check_class(self.text, index, values)
        weights = np.zeros(values.shape)
        weights[index, *place] = 1
        said = f"{_REGION}{call(index, self.labels)}@{self.x},{self.y}"
        number = float(values[index, *place])
        return Weights(weights, number, said if self.index is None else "")


def in_pixels(
    target: object,
    classes: Callable[[str], int],
    labels: Sequence[str] | None,
    read_mask: Callable[[str], Array],
) -> WeightedTarget | None:
    """Return the target that ``region:CLASS``, with ``@X,Y`` or ``@FILE`` after it, stands for.

    Args:
        target: what the user wrote.
        classes: returns a class's index by its index or label, or raises a :class:`TargetError`.
        labels: names of the classes, for records.
        read_mask: reads a mask, ``[H, W]``, from a file.

    Raises:
        TargetError: it is one, but a part of it is wrong.
        ImageError: the mask cannot be read.
    """
    text = target.strip() if isinstance(target, str) else ""
    if not text.lower().startswith(_REGION):
        return None
    rest = text[len(_REGION) :]
    if "@" not in rest or rest.strip() in (labels or ()):
        return Region(text, classes(rest.strip()))
    name, _, place = rest.partition("@")
    point = _POINT.fullmatch(place)
    if point is not None:
        index = classes(name.strip()) if name.strip() else None
        return AtPixel(int(point[1]), int(point[2]), index, text, labels)
    if not name.strip() or not place.strip():
        raise TargetError(
            f"target '{text}': write region:CLASS@X,Y, region:@X,Y or region:CLASS@MASK.png."
        )
    return Masked(read_mask(place.strip()), classes(name.strip()), text)


def narrowed(
    targets: Sequence[str],
    masks: Sequence[object],
    points: Sequence[str],
    *,
    detector: bool = False,
) -> list[str]:
    """Return the targets, every region of a class in each of the masks and at each of the points.

    Without such a region, points are those of the class that is predicted there; of a detector, of
    the surest box there.

    Raises:
        TargetError: a mask without a class, or a point in another form.
    """
    for point in points:
        if not _POINT.fullmatch(point):
            raise TargetError(f"pixel '{point}': write it as X,Y, counted from the upper left.")
    places = [*map(str, masks), *points]
    found: list[str] = []
    regions = 0
    kind = "box:" if detector else _REGION
    for target in targets:
        region = target.strip().lower().startswith(kind) and "@" not in target
        found += [f"{target.strip()}@{p}" for p in places] if region and places else [target]
        regions += region
    if places and not regions:
        if masks:
            raise TargetError("a mask needs a class: add -t region:CLASS.")
        found += [f"{kind}@{p}" for p in points]
    return found


def _check_class(text: str, index: int, values: Array) -> None:
    if not 0 <= index < len(values):
        raise TargetError(
            f"target '{text}' is out of range: the classes of pixels count from 0 to "
            f"{len(values) - 1}."
        )


def _seen(geometry: Geometry) -> str:
    rows, columns = geometry.seen()
    return f"X from {columns[0]} to {columns[-1]} and Y from {rows[0]} to {rows[-1]}"
