"""A detector's numbers as corners of boxes, in pixels of the input or of the photograph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_NEARLY_ALL = 0.95
# Strides of scales, and boxes a cell.
_GRIDS = (
    ((8, 16, 32), (1, 1, 1)),
    ((8, 16, 32, 64), (1, 1, 1, 1)),
    ((8, 16), (2, 6)),
    ((16, 32), (2, 6)),
    ((4,), (1,)),
)
_LARGEST = 20.0
_FEW = 2.0  # boxes of no greater coordinates are in parts of the image


class Reading(Protocol):
    """How the numbers are read, see :class:`onnxcam.surgeon.plan.DetectorFacts`."""

    @property
    def objectness(self) -> bool: ...  # noqa: D102
    @property
    def final(self) -> bool: ...  # noqa: D102
    @property
    def given(self) -> bool: ...  # noqa: D102
    @property
    def classes(self) -> int | None: ...  # noqa: D102
    @property
    def squashed(self) -> str: ...  # noqa: D102
    @property
    def corners(self) -> bool | None: ...  # noqa: D102
    @property
    def threshold(self) -> float | None: ...  # noqa: D102
    @property
    def overlap(self) -> float | None: ...  # noqa: D102
    @property
    def most(self) -> float | None: ...  # noqa: D102
    @property
    def offsets(self) -> bool: ...  # noqa: D102
    @property
    def relative(self) -> bool | None: ...  # noqa: D102


class _Placement(Protocol):
    """Where one axis of the photograph lies in the input."""

    @property
    def photo(self) -> int: ...
    @property
    def input(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def offset(self) -> float: ...


class Geometry(Protocol):
    """Where the photograph lies in the input."""

    @property
    def rows(self) -> _Placement: ...  # noqa: D102
    @property
    def columns(self) -> _Placement: ...  # noqa: D102


def corners_of(boxes: Array, kept: Array, reading: Reading, size: tuple[int, int]) -> Array | None:
    """Return boxes as left, top, right, bottom in pixels of the input.

    Where it is not known how they are written, what the numbers of the boxes that are kept can be
    decides: corners, centre and size, or offsets from a grid of cells. ``None`` where they are
    none of these: offsets from anchors that only the model's own tools know.
    """
    one, other = boxes[:, :2], boxes[:, 2:]
    ordered = reading.corners
    if ordered is None:
        ordered = bool((other > one).all(axis=1).mean() > _NEARLY_ALL)
    if ordered:  # NonMaxSuppression takes any two opposite ones
        found = np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)
    else:
        found = np.concatenate([one - other / 2, one + other / 2], axis=1)
    relative = reading.relative
    if relative is None:
        relative = 0 < np.abs(boxes[kept]).max(initial=0) <= _FEW
    if relative:
        found = found * np.array([*size, *size], np.float64)
    if not reading.offsets and _plausible(found[kept], size):
        return found
    return next((c for c in _from_cells(boxes, size) if _plausible(c[kept], size)), None)


def _plausible(boxes: Array, size: tuple[int, int]) -> bool:
    """Whether boxes have a size, and lie in the image."""
    middle, spread = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    inside = ((middle >= 0) & (middle <= size) & (spread > 0)).all(axis=1)
    return not len(boxes) or bool(inside.mean() > _NEARLY_ALL)


def _from_cells(boxes: Array, size: tuple[int, int]) -> Iterator[Array]:
    """Yield boxes from a grid of cells a scale, where there are as many as cells.

    With one box a cell, the centre is the cell plus the first two numbers, width and height are the
    exponentials of the others, all in cells (YOLOX, Ge et al. 2021). With several, or in pixels,
    the centre is the cell's plus the first two numbers, and the others are the size (BlazeFace,
    Bazarevsky et al. 2019).
    """
    for strides, several in _GRIDS:
        grid = np.concatenate([_grid(size, *pair) for pair in zip(strides, several, strict=True)])
        if len(grid) != len(boxes):
            continue
        corner, stride = grid[:, :2], grid[:, 2:]
        if set(several) == {1}:
            half = np.exp(np.minimum(boxes[:, 2:], _LARGEST)) * stride / 2
            centre = (boxes[:, :2] + corner) * stride
            yield np.concatenate([centre - half, centre + half], axis=1)
        centre, half = boxes[:, :2] + (corner + 0.5) * stride, boxes[:, 2:] / 2
        yield np.concatenate([centre - half, centre + half], axis=1)


def _grid(size: tuple[int, int], stride: int, boxes: int) -> Array:
    """Return column, row and stride of every box of a scale, row by row."""
    width, height = size
    y, x = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
    return np.repeat(np.stack([x, y, np.full_like(x, stride)], axis=1), boxes, axis=0)


def overlaps(one: Array, others: Array) -> Array:
    """Return the intersection of boxes over their union."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = np.clip(others[:, 2:] - others[:, :2], 0, None).prod(axis=1)
    whole = areas + np.clip(one[2:] - one[:2], 0, None).prod() - shared
    return np.where(whole > 0, shared / np.where(whole > 0, whole, 1), 0)


def in_photo(corners: Array, geometry: Geometry) -> tuple[float, float, float, float]:
    """Return corners in pixels of the photograph, cut at its edges."""
    ends = []
    for at in (0, 1, 2, 3):
        axis = geometry.rows if at % 2 else geometry.columns
        ends.append(float(np.clip((corners[at] - axis.offset) / axis.scale, 0, axis.photo)))
    return (ends[0], ends[1], ends[2], ends[3])
