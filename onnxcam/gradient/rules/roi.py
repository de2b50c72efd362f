"""Pooling regions of interest, expanded into operators that have rules.

RoiAlign reads between pixels, so it also has a gradient with respect to its regions. MaxRoiPool
rounds its regions and has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET
from onnxcam.gradient.helpers.interpolation import taps
from onnxcam.gradient.helpers.lengths import Length, combine, length, scalar, vector
from onnxcam.gradient.registry import expansion


@dataclass(frozen=True)
class Readings:
    """What the bins of regions read along one axis: ``[R, bins, K]`` pixels and weights.

    Each region may have its own number of ``samples`` per bin, ``[R, 1, 1]``; those beyond it are
    not ``real``. There may be no region at all.
    """

    index: ir.Value
    weight: ir.Value
    real: ir.Value
    samples: ir.Value
    each: Length  # K


def _roi_align(c: Call) -> list[ir.Value]:
    """The average is separable: ``y = A x B^T`` for each region, with ``[bins, pixels]`` matrices.

    B belongs to an image as well: its rows are 0 for the regions of other images, so that one
    product computes all regions of an image.
    """
    if c.attribute("mode", "avg") != "avg":
        return [_largest_sample(c)]
    x, op, ints = c.x(0), c.op, c.builder.ints
    high, wide = (int(c.attribute(f"output_{name}", 1)) for name in ("height", "width"))
    batch, channels, rows = length(c, x, 0), length(c, x, 1), length(c, x, 2)
    down, across = _matrix(c, 0, high), _matrix(c, 1, wide)
    own = op("Unsqueeze", op("Transpose", _hot(c, c.x(2), batch), perm=[1, 0]), ints(2, 3))
    own = op("Mul", own, across)  # [N, R, bins, pixels]
    own = op("Transpose", op("Reshape", own, vector(c, batch, -1, length(c, x, 3))), perm=[0, 2, 1])
    lines = op("Reshape", x, vector(c, batch, -1, length(c, x, 3)))
    lines = op("ReduceSum", op("MatMul", lines, own), ints(0), keepdims=0)  # [C H, R bins]
    lines = op("Reshape", lines, vector(c, channels, rows, -1, wide))
    lines = op("Transpose", lines, perm=[2, 0, 1, 3])  # [R, C, H, bins]
    return [op("MatMul", op("Unsqueeze", down, ints(1)), lines)]


def _matrix(c: Call, axis: int, bins: int) -> ir.Value:
    """Return ``[R, bins, pixels]``, the weight of each pixel in the average of each bin."""
    op, pixels = c.op, length(c, c.x(0), 2 + axis)
    read = _readings(c, axis, bins, pixels)
    weight = op("Div", op("Mul", read.weight, read.real), read.samples)
    hot = _hot(c, read.index, pixels)  # [R, bins, K, pixels]
    weighted = op("Mul", hot, op("Unsqueeze", weight, c.builder.ints(3)))
    return op("ReduceSum", weighted, c.builder.ints(2), keepdims=0)


def _counted(c: Call, count: Length) -> ir.Value:
    """Return 0, 1, ..., ``count - 1``."""
    zero, one = c.builder.constant(np.int64(0)), c.builder.constant(np.int64(1))
    return c.op("Range", zero, scalar(c, count), one)


def _hot(c: Call, index: ir.Value, count: Length) -> ir.Value:
    """Return the indices as one-hot vectors of length ``count`` along a new last axis."""
    same = c.op("Equal", c.op("Unsqueeze", index, c.builder.ints(-1)), _counted(c, count))
    return c.op("Cast", same, to=c.kind)


def _largest_sample(c: Call) -> ir.Value:
    """Return the largest of the pixels around a bin's samples, each times its weight."""
    x, op, ints = c.x(0), c.op, c.builder.ints
    high, wide = (int(c.attribute(f"output_{name}", 1)) for name in ("height", "width"))
    rows, columns, channels = length(c, x, 2), length(c, x, 3), length(c, x, 1)
    down, across = _readings(c, 0, high, rows), _readings(c, 1, wide, columns)

    def both(op_type: str, first: ir.Value, second: ir.Value) -> ir.Value:
        """Combine ``[R, rows, K]`` with ``[R, columns, L]`` to ``[R, rows, columns, K, L]``."""
        return op(op_type, op("Unsqueeze", first, ints(2, 4)), op("Unsqueeze", second, ints(1, 3)))

    image = op("Mul", op("Reshape", c.x(2), ints(-1, 1, 1)), vector(c, rows))
    line = op("Mul", op("Add", down.index, image), vector(c, columns))
    index = both("Add", line, across.index)
    weight, real = both("Mul", down.weight, across.weight), both("Mul", down.real, across.real)
    pixels = op("Reshape", op("Transpose", x, perm=[0, 2, 3, 1]), vector(c, -1, channels))
    bins, each = high * wide, combine(c, "Mul", down.each, across.each)
    read = op("Gather", pixels, op("Reshape", index, vector(c, -1, bins, each)), axis=0)
    weight = op("Reshape", weight, vector(c, -1, bins, each, 1))
    exists = op("Greater", op("Reshape", real, vector(c, -1, 1, each, 1)), c.like(0.5))
    read = op("Where", exists, op("Mul", read, weight), c.like(-np.inf))  # [R, bins, K L, C]
    best = op("GatherElements", read, op("ArgMax", read, axis=2, keepdims=1), axis=2)
    best = op(
        "Where", op("Greater", best, c.like(-np.inf)), best, c.like(0.0)
    )  # 0 where nothing was read
    best = op("Reshape", best, vector(c, -1, high, wide, channels))
    return op("Transpose", best, perm=[0, 3, 1, 2])


def _readings(c: Call, axis: int, bins: int, pixels: Length) -> Readings:
    """Return what is read along an axis: evenly spaced samples in each bin.

    A sample up to one pixel outside the image reads the edge, one farther away reads 0.
    """
    op, ints, like = c.op, c.builder.ints, c.like
    start, size = _extent(c, axis)
    bin_size = op("Div", size, like(bins))
    ratio = int(c.attribute("sampling_ratio", 0))
    if ratio > 0:
        wanted = op("Expand", like(ratio), op("Shape", bin_size))
        most: Length = ratio
    else:  # about one sample for each pixel
        wanted = op("Ceil", bin_size)
        counts = op(
            "Concat",
            op("Reshape", wanted, ints(-1)),
            c.builder.constant(np.ones(1), c.kind),
            axis=0,
        )
        most = op("Cast", op("ReduceMax", counts, keepdims=1), to=ir.DataType.INT64)
    samples = op("Max", wanted, like(1))
    numbers = op("Cast", _counted(c, most), to=c.kind)
    within = op("Div", op("Mul", op("Add", numbers, like(0.5)), bin_size), samples)  # [R, 1, S]
    steps = c.builder.constant(np.arange(bins)[:, None], c.kind)
    position = op("Add", op("Add", start, op("Mul", bin_size, steps)), within)  # [R, bins, S]
    last = op("Cast", vector(c, combine(c, "Sub", pixels, 1)), to=c.kind)
    far = op(
        "Or", op("Less", position, like(-1)), op("Greater", position, op("Add", last, like(1)))
    )
    position = op("Where", op("Less", position, like(0)), like(0), position)
    position = op("Where", op("Greater", position, last), last, position)
    read = taps(c, op("Reshape", position, vector(c, -1, most)), pixels, "linear", "border")
    assert read.weight is not None
    each = combine(c, "Mul", most, 2)
    flat = vector(c, -1, bins, each)
    near = op("Reshape", op("Cast", op("Not", far), to=c.kind), vector(c, -1, most, 1))
    real = op("Unsqueeze", op("Cast", op("Less", numbers, wanted), to=c.kind), ints(3))
    real = op("Mul", real, c.builder.constant(np.ones(2), c.kind))  # for both pixels
    return Readings(
        op("Reshape", read.index, flat),
        op("Reshape", op("Mul", read.weight, near), flat),
        op("Reshape", real, vector(c, -1, 1, each)),
        samples,
        each,
    )


def _extent(c: Call, axis: int) -> tuple[ir.Value, ir.Value]:
    """Return where each region starts and how long it is, in pixels, ``[R, 1, 1]``."""
    op = c.op
    system = "half_pixel" if c.builder.opset >= ADDING_OPSET else "output_half_pixel"
    half = c.attribute("coordinate_transformation_mode", system) == "half_pixel"
    scale = c.like(c.attribute("spatial_scale", 1.0))

    def bound(column: int) -> ir.Value:
        found = op("Gather", c.x(1), c.builder.constant(np.int64(column)), axis=1)
        pixel = op("Mul", op("Reshape", found, c.builder.ints(-1, 1, 1)), scale)
        return op("Sub", pixel, c.like(0.5)) if half else pixel

    start, end = bound(1 - axis), bound(3 - axis)  # x comes before y
    size = op("Sub", end, start)
    return start, size if half else op("Where", op("Less", size, c.like(1)), c.like(1), size)


expansion("RoiAlign", _roi_align, opset=ADDING_OPSET)


def _max_roi_pool(c: Call) -> list[ir.Value]:
    """Take the largest pixel of each bin, along rows and then along columns; 0 in empty bins."""
    x, op, ints = c.x(0), c.op, c.builder.ints
    high, wide = (int(n) for n in c.attribute("pooled_shape", []))
    image = op(
        "Cast", op("Gather", c.x(1), c.builder.constant(np.int64(0)), axis=1), to=ir.DataType.INT64
    )
    found = op("Gather", x, image, axis=0)  # [R, C, H, W]
    inside = op("Unsqueeze", _bins(c, 1, wide), ints(1, 2))
    found = _largest(c, op("Unsqueeze", found, ints(3)), inside, 4)  # [R, C, H, bins]
    inside = op("Unsqueeze", _bins(c, 0, high), ints(1, 4))
    found = _largest(c, op("Unsqueeze", found, ints(2)), inside, 3)
    return [op("Where", op("Greater", found, c.like(-np.inf)), found, c.like(0))]


def _largest(c: Call, value: ir.Value, inside: ir.Value, axis: int) -> ir.Value:
    kept = c.op("Where", inside, value, c.like(-np.inf))
    best = c.op("GatherElements", kept, c.op("ArgMax", kept, axis=axis, keepdims=1), axis=axis)
    return c.op("Squeeze", best, c.builder.ints(axis))


def _bins(c: Call, axis: int, bins: int) -> ir.Value:
    """Return which pixels lie in each bin, ``[R, bins, pixels]``; bounds are whole numbers."""
    op, like = c.op, c.like

    def bound(column: int) -> ir.Value:
        """Return a bound in pixels, rounded; halves are rounded away from 0."""
        value = op("Gather", c.x(1), c.builder.constant(np.int64(column)), axis=1)
        value = op(
            "Mul",
            op("Reshape", value, c.builder.ints(-1, 1, 1)),
            like(c.attribute("spatial_scale", 1.0)),
        )
        return op("Mul", op("Sign", value), op("Floor", op("Add", op("Abs", value), like(0.5))))

    start, end = bound(2 - axis), bound(4 - axis)
    size = op("Max", op("Add", op("Sub", end, start), like(1)), like(1))
    bin_size = op("Div", size, like(bins))
    first, after = (c.builder.constant(np.arange(bins)[:, None] + i, c.kind) for i in (0, 1))
    begin = op("Add", op("Floor", op("Mul", first, bin_size)), start)
    stop = op("Add", op("Ceil", op("Mul", after, bin_size)), start)
    pixels = op("Cast", _counted(c, length(c, c.x(0), 2 + axis)), to=c.kind)
    return op("And", op("GreaterOrEqual", pixels, begin), op("Less", pixels, stop))


expansion("MaxRoiPool", _max_roi_pool, opset=ADDING_OPSET)
