"""Sampling an image at places that the run computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET
from onnxcam.gradient.helpers.interpolation import Mode, sample, taps
from onnxcam.gradient.helpers.lengths import Length, length, scalar, vector, volume
from onnxcam.gradient.registry import expansion, rule
from onnxcam.graph.values import HALVES

_MODES: dict[str, Mode] = {"bilinear": "linear", "bicubic": "cubic"}  # names before opset 20


def _grid_sample(c: Call) -> list[ir.Value]:
    """Read the image around each place of the grid, whose last axis names x before y."""
    x, grid, ints = c.x(0), c.x(1), c.builder.ints
    space = c.rank(x) - 2
    mode, edge = c.attribute("mode", "linear"), c.attribute("padding_mode", "zeros")
    corners = bool(c.attribute("align_corners", 0))
    counts = [length(c, x, i + 2) for i in range(space)]
    places = c.op("Reshape", grid, ints(0, -1, space))
    axes = []
    for i, count in enumerate(counts):
        one = c.op("Gather", places, c.builder.constant(np.int64(space - 1 - i)), axis=2)
        axes.append(
            taps(c, _place(c, one, count, corners), count, _MODES.get(mode, mode), edge, corners)
        )
    read = sample(c, c.op("Reshape", x, ints(0, 0, -1)), axes, counts)
    sizes = [length(c, grid, i + 1) for i in range(space)]
    return [c.op("Reshape", read, vector(c, 0, 0, *sizes))]


def _place(c: Call, normalized: ir.Value, count: Length, corners: bool) -> ir.Value:
    """Return the pixel of a coordinate: -1 and 1 are the middles of the corner pixels, or edges."""
    many = c.op("Cast", scalar(c, count), to=c.kind)
    half = c.op("Mul", c.op("Add", normalized, c.like(1.0)), c.like(0.5))
    if corners:
        return c.op("Mul", half, c.op("Sub", many, c.like(1.0)))
    return c.op("Sub", c.op("Mul", half, many), c.like(0.5))


expansion("GridSample", _grid_sample, opset=ADDING_OPSET)


def _affine_grid(c: Call, g: ir.Value) -> ir.Value:
    """Return dtheta = sum of g and the coordinates ``(x, y, 1)``, an outer product per place.

    The coordinates are the grid of the identity.
    """
    op, ints = c.op, c.builder.ints
    space = c.rank(c.y) - 2
    # In half precision the runtime has no kernel, and fails on a constant.
    halves = c.kind in HALVES
    kind = ir.DataType.FLOAT if halves else c.kind
    identity = c.builder.constant(np.eye(space, space + 1)[None], kind)
    sizes = op("Concat", ints(1), op("Slice", c.x(1), ints(1), ints(space + 2)), axis=0)
    grid = op("Reshape", c.builder.copy(c.node, [identity, sizes]), ints(-1, space))
    grid = op("Cast", grid, to=c.kind) if halves else grid
    ones = op("Expand", c.like(1.0), vector(c, volume(c, c.y, 1, space + 1), 1))
    places = op("Transpose", op("Reshape", g, ints(0, 0, -1, space)), perm=[0, 1, 3, 2])
    return op("MatMul", places, op("Concat", grid, ones, axis=1))


rule("AffineGrid", _affine_grid, None)
