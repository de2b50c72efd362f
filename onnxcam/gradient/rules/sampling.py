"""Sampling an image at computed positions."""

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
    """Read the image around each position of the grid, whose last axis holds x before y."""
    x, grid, ints = c.x(0), c.x(1), c.builder.ints
    space = c.rank(x) - 2
    mode, edge = c.attribute("mode", "linear"), c.attribute("padding_mode", "zeros")
    corners = bool(c.attribute("align_corners", 0))
    sizes = [length(c, x, i + 2) for i in range(space)]
    positions = c.op("Reshape", grid, ints(0, -1, space))
    axes = []
    for i, size in enumerate(sizes):
        normalized = c.op("Gather", positions, c.builder.constant(np.int64(space - 1 - i)), axis=2)
        pixel = _pixel(c, normalized, size, corners)
        axes.append(taps(c, pixel, size, _MODES.get(mode, mode), edge, corners))
    read = sample(c, c.op("Reshape", x, ints(0, 0, -1)), axes, sizes)
    outputs = [length(c, grid, i + 1) for i in range(space)]
    return [c.op("Reshape", read, vector(c, 0, 0, *outputs))]


def _pixel(c: Call, normalized: ir.Value, size: Length, corners: bool) -> ir.Value:
    """Return the pixel at a coordinate in [-1, 1].

    -1 and 1 are the centres of the first and last pixel (``corners``), or their outer edges.
    """
    pixels = c.op("Cast", scalar(c, size), to=c.kind)
    half = c.op("Mul", c.op("Add", normalized, c.like(1.0)), c.like(0.5))
    if corners:
        return c.op("Mul", half, c.op("Sub", pixels, c.like(1.0)))
    return c.op("Sub", c.op("Mul", half, pixels), c.like(0.5))


expansion("GridSample", _grid_sample, opset=ADDING_OPSET)


def _affine_grid(c: Call, g: ir.Value) -> ir.Value:
    """Return dtheta = sum over positions of g (x, y, 1)^T.

    The coordinates (x, y) are the grid of the identity transform.
    """
    op, ints = c.op, c.builder.ints
    space = c.rank(c.y) - 2
    # The runtime has no kernel for half precision, and fails on a constant.
    halves = c.kind in HALVES
    kind = ir.DataType.FLOAT if halves else c.kind
    identity = c.builder.constant(np.eye(space, space + 1)[None], kind)
    sizes = op("Concat", ints(1), op("Slice", c.x(1), ints(1), ints(space + 2)), axis=0)
    grid = op("Reshape", c.builder.copy(c.node, [identity, sizes]), ints(-1, space))
    grid = op("Cast", grid, to=c.kind) if halves else grid
    ones = op("Expand", c.like(1.0), vector(c, volume(c, c.y, 1, space + 1), 1))
    g = op("Transpose", op("Reshape", g, ints(0, 0, -1, space)), perm=[0, 1, 3, 2])
    return op("MatMul", g, op("Concat", grid, ones, axis=1))


rule("AffineGrid", _affine_grid, None)
