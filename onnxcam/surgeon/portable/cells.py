"""A detector's boxes that are offsets from cells, decoded in the graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.graph.builder import Builder

# Strides of scales, and boxes a cell; the same as in onnxcam.targets.corners.
GRIDS = (
    ((8, 16, 32), (1, 1, 1)),
    ((8, 16, 32, 64), (1, 1, 1, 1)),
    ((8, 16), (2, 6)),
    ((16, 32), (2, 6)),
    ((4,), (1,)),
)
_LARGEST = 20.0
_FLOAT = ir.DataType.FLOAT


def from_cells(
    b: Builder, rows: ir.Value, count: int | None, size: tuple[int, int]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yield what boxes may be, ``[N, A, 4]`` corners in pixels of the input, and whether they fit.

    They fit, float 1 or 0, where there are as many as cells, which the run tells if nothing else
    does.

    Args:
        b: the graph's builder.
        rows: of the detector, ``[N, A, 4 + S]`` float32.
        count: ``A``, where it is known.
        size: width and height of the input.
    """
    one = b.op("Slice", rows, b.ints(0), b.ints(2), b.ints(2))
    other = b.op("Slice", rows, b.ints(2), b.ints(4), b.ints(2))
    for strides, several in GRIDS:
        scales = [_scale(size, *pair) for pair in zip(strides, several, strict=True)]
        grid = np.concatenate(scales).astype(np.float32)
        if count not in (None, len(grid)) or not len(grid):
            continue
        known = b.op("Gather", b.op("Shape", rows), b.constant(np.int64(1)), axis=0)
        last = b.constant(np.int64(len(grid) - 1))
        step = b.constant(np.int64(1))
        places = b.op("Min", b.op("Range", b.constant(np.int64(0)), known, step), last)
        cells = b.op("Gather", b.constant(grid), places, axis=0)  # [A, 3], however many there are
        fits = b.op("Cast", b.op("Equal", known, b.constant(np.int64(len(grid)))), to=_FLOAT)
        corner = b.op("Slice", cells, b.ints(0), b.ints(2), b.ints(1))
        stride = b.op("Slice", cells, b.ints(2), b.ints(3), b.ints(1))
        half = b.constant(np.float32(0.5))
        if set(several) == {1}:
            grown = b.op("Exp", b.op("Min", other, b.constant(np.float32(_LARGEST))))
            centre = b.op("Mul", b.op("Add", one, corner), stride)
            yield _around(b, centre, b.op("Mul", b.op("Mul", grown, half), stride)), fits
        middle = b.op("Mul", b.op("Add", corner, half), stride)
        yield _around(b, b.op("Add", one, middle), b.op("Mul", other, half)), fits


def _scale(size: tuple[int, int], stride: int, boxes: int) -> NDArray[np.int64]:
    """Return column, row and stride of every box of a scale, row by row."""
    y, x = np.mgrid[: size[1] // stride, : size[0] // stride].reshape(2, -1)
    return np.repeat(np.stack([x, y, np.full_like(x, stride)], axis=1), boxes, axis=0)


def _around(b: Builder, centre: ir.Value, half: ir.Value) -> ir.Value:
    return b.op("Concat", b.op("Sub", centre, half), b.op("Add", centre, half), axis=2)
