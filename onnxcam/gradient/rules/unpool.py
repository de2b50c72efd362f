"""Operators that put windows, or one element of each window, back into an image."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import element_ids
from onnxcam.gradient.helpers.lengths import vector, volume
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant


def _max_unpool(c: Call, g: ir.Value) -> ir.Value:
    """Gather g where the elements went; the indices are into the flattened output.

    Of elements that went to the same index only the last one stays, and only it has a gradient.
    """
    x, indices, op = c.x(0), c.x(1), c.op
    flat, ids = op("Reshape", indices, c.builder.ints(-1)), element_ids(c, x)
    empty = op("Expand", c.builder.ints(0), vector(c, volume(c, c.y)))
    stayed = op("ScatterElements", empty, flat, op("Reshape", ids, c.builder.ints(-1)), axis=0)
    fetched = op("Gather", op("Reshape", g, c.builder.ints(0, -1)), flat, axis=1)
    return c.mask(op("Equal", op("Gather", stayed, indices, axis=0), ids), c.split_t(fetched, x))


rule("MaxUnpool", _max_unpool, None, None)


def _col2im(c: Call, g: ir.Value) -> ir.Value:
    """Cut g into blocks, by a convolution with one one-hot kernel for each position of a block."""
    block = constant(c.operand(2))
    if block is not None:
        eye = np.eye(int(np.prod(block))).reshape(-1, 1, *block)
        kernel = c.builder.constant(eye, c.kind)
    else:
        count = c.op("ReduceProd", c.x(2), keepdims=1)
        square = c.op("Expand", c.like(0.0), c.op("Concat", count, count, axis=0))
        shape = c.op("Concat", c.builder.ints(-1, 1), c.x(2), axis=0)
        kernel = c.op("Reshape", c.op("EyeLike", square), shape)
    image = c.op("Unsqueeze", c.merge_t(g, c.y, keep=2), c.builder.ints(1))
    kept = {name: a.value for name, a in c.node.attributes.items()}
    return c.split_t(c.op("Conv", image, kernel, **kept), c.x(0))


rule("Col2Im", _col2im, None, None)
