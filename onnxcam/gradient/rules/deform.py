"""Deformable convolution, Dai et al. 2017, with the modulation of Zhu et al. 2019."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET
from onnxcam.gradient.helpers.interpolation import sample, taps
from onnxcam.gradient.helpers.lengths import combine, length, scalar, vector
from onnxcam.gradient.registry import expansion

_PLANAR = "only two spatial axes and a kernel of known shape are supported"


def _deform_conv(c: Call) -> list[ir.Value]:
    """Sample the pixels under each kernel element, and multiply them by the weights.

    Every offset group is an image of its own with its share of the channels. The sampled columns
    are ``[N * offset groups, channels, kernel * output positions]``.
    """
    x, weight, offset, op = c.x(0), c.x(1), c.x(2), c.op
    group, parts = int(c.attribute("group", 1)), int(c.attribute("offset_group", 1))
    shape = c.attribute("kernel_shape", None) or c.dims(weight)[2:]
    kernel = [k for k in shape if isinstance(k, int)]
    if len(kernel) != 2 or c.rank(x) != 4:
        raise c.refuse(_PLANAR)
    elements = int(np.prod(kernel))
    batch, inputs = length(c, x, 0), [length(c, x, 2), length(c, x, 3)]
    sizes = [length(c, offset, 2), length(c, offset, 3)]  # of the output
    images, space = combine(c, "Mul", batch, parts), combine(c, "Mul", *sizes)
    offsets = op("Reshape", offset, vector(c, images, elements, 2, space))
    axes = []
    for i, size in enumerate(inputs):
        own = op("Gather", offsets, c.builder.constant(np.int64(i)), axis=2)
        position = op("Add", own, _regular(c, i, kernel, sizes))
        position = op("Reshape", position, c.builder.ints(0, -1))
        axes.append(taps(c, position, size, "linear", "zeros"))
    pixels = op("Reshape", x, vector(c, images, -1, combine(c, "Mul", *inputs)))
    columns = sample(c, pixels, axes, inputs)
    if c.operand(4) is not None:
        columns = op("Mul", columns, op("Reshape", c.x(4), vector(c, images, 1, -1)))
    columns = op("Reshape", columns, vector(c, batch, group, -1, space))
    depth = combine(c, "Mul", length(c, weight, 1), elements)
    y = op("MatMul", op("Reshape", weight, vector(c, group, -1, depth)), columns)
    y = op("Reshape", y, vector(c, batch, -1, *sizes))
    if c.operand(3) is not None:
        y = op("Add", y, op("Reshape", c.x(3), c.builder.ints(-1, 1, 1)))
    return [y]


def _regular(c: Call, axis: int, kernel: list[int], sizes: list[int | ir.Value]) -> ir.Value:
    """Return the pixels under the kernel without offsets, ``[kernel, output positions]``."""
    op, zero, one = c.op, c.builder.constant(np.int64(0)), c.builder.constant(np.int64(1))
    stride = int(c.attribute("strides", [1, 1])[axis])
    dilation = int(c.attribute("dilations", [1, 1])[axis])
    begin = int(c.attribute("pads", [0] * 4)[axis])
    steps = op("Mul", op("Range", zero, scalar(c, sizes[axis]), one), c.builder.ints(stride))
    steps = op("Reshape", steps, c.builder.ints(1, *((-1, 1) if axis == 0 else (1, -1))))
    within = np.indices(kernel)[axis].reshape(-1, 1, 1) * dilation - begin
    positions = op("Expand", op("Add", steps, c.builder.constant(within)), vector(c, 1, *sizes))
    return op("Cast", op("Reshape", positions, c.builder.ints(int(np.prod(kernel)), -1)), to=c.kind)


expansion("DeformConv", _deform_conv, opset=ADDING_OPSET, refuses=[_PLANAR])
