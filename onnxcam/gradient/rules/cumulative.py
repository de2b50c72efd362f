"""Cumulative products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.registry import rule


def _cum_prod(c: Call, g: ir.Value) -> ir.Value:
    """Return dx_j = sum_i g_i y_i / x_j, over the results y_i that have x_j as a factor.

    ``y_i / x_j`` is the product with 1 in place of x_j: n rows in place of one, but right where x
    has zeros.
    """
    x, op, ints = c.x(0), c.op, c.builder.ints
    rank = c.rank(x)
    axis = int(c.known(1, "axes").item()) % rank
    reverse, exclusive = int(c.attribute("reverse", 0)), int(c.attribute("exclusive", 0))
    count = op("Squeeze", op("Slice", c.builder.shape(x), ints(axis), ints(axis + 1)), ints(0))
    indices = op("Range", c.builder.constant(0), count, c.builder.constant(1))
    tail = [1] * (rank - axis - 1)
    factor = op("Reshape", indices, ints(-1, 1, *tail))  # j
    result = op("Reshape", indices, ints(-1, *tail))  # i, also of the elements multiplied
    rows = op("Where", op("Equal", factor, result), c.like(1.0), op("Unsqueeze", x, ints(axis)))
    along = c.builder.constant(np.int64(axis + 1))
    others = op("CumProd", rows, along, reverse=reverse, exclusive=exclusive)
    compare = ("Less" if reverse else "Greater") + ("" if exclusive else "OrEqual")
    reached = op("Where", op(compare, result, factor), others, c.like(0.0))
    parts = op("Mul", op("Unsqueeze", g, ints(axis + 1)), reached)
    return op("ReduceSum", parts, ints(axis + 2), keepdims=0)


rule("CumProd", _cum_prod, None, opset=26, refuses=[must_be_known("axes")])
