"""Return cotangents to the elements that were read, by the ids of these elements.

Elements are numbered 0, 1, ... in row-major order. An operator that only moves elements is run on
these ids: each result is the id of the element it holds, and its cotangent goes back there.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import Length, combine, scalar, vector, volume
from onnxcam.graph.values import HALVES

ADDING_OPSET = 16  # from here on ScatterElements can add


def element_ids(c: Call, x: ir.Value, start: Length = 0) -> ir.Value:
    """Return the ids of the elements of ``x``, counted from ``start``, in the shape of ``x``."""
    end = combine(c, "Add", start, volume(c, x))
    ids = c.op("Range", scalar(c, start), scalar(c, end), scalar(c, 1))
    return c.op("Reshape", ids, c.builder.shape(x))


def rerun(c: Call, x: ir.Value) -> ir.Value:
    """Return the operator's result on ``x`` in place of its first operand."""
    return c.builder.copy(c.node, [x, *c.node.inputs[1:]])


def scatter_by_ids(c: Call, g: ir.Value, ids: ir.Value, size: Length, distinct: bool) -> ir.Value:
    """Return ``[T, size]``: ``g``, ``[T, *S]``, added up at ``ids``, ``[*S]``."""
    flat = c.op("Reshape", g, c.builder.ints(0, -1))
    index = c.op("Reshape", ids, c.builder.ints(1, -1))
    return scatter(c, vector(c, length_of_t(c.builder, g), size), index, flat, 1, distinct)


def scatter(
    c: Call, shape: ir.Value, index: ir.Value, updates: ir.Value, axis: int, distinct: bool
) -> ir.Value:
    """Return zeros of ``shape`` with ``updates`` added at ``index`` along ``axis``.

    ``index`` is broadcast to the shape of ``updates``. Where it is ``distinct`` no two updates
    meet. Half precision is added in float32: that is more exact, and the runtime has no kernel
    for less. (ScatterND adds faster, but ONNX Runtime 1.32 loses summands there when it runs
    with several threads.)
    """
    kind = c.kind
    wide = kind in HALVES and not distinct
    if wide:
        updates = c.op("Cast", updates, to=ir.DataType.FLOAT)
    zero = c.builder.constant(0.0, ir.DataType.FLOAT) if wide else c.like(0.0)
    index = c.op("Expand", index, c.op("Shape", updates))
    adding = {} if distinct else {"reduction": "add"}
    zeros = c.op("Expand", zero, shape)
    found = c.op("ScatterElements", zeros, index, updates, axis=axis, **adding)
    return c.op("Cast", found, to=kind) if wide else found


def gradient_by_ids(c: Call, g: ir.Value, distinct: bool) -> ir.Value:
    """Return the cotangent of the first operand of an operator that moves its elements."""
    x = c.x(0)
    ids = rerun(c, element_ids(c, x))
    return c.split_t(scatter_by_ids(c, g, ids, volume(c, x), distinct), x)
