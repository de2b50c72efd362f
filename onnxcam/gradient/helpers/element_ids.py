"""Hand values back to the elements that they were read from.

An operator that only moves elements can be run on the elements' numbers: what comes out says
of each result which element it is. The cotangent goes back by those numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import Length, combine, scalar, vector, volume
from onnxcam.graph.values import HALVES

ADDING = 16  # the opset from which on ScatterElements can add


def numbers(c: Call, x: ir.Value, start: Length = 0) -> ir.Value:
    """Return the elements' numbers, counted from ``start``, in the shape of ``x``."""
    end = combine(c, "Add", start, volume(c, x))
    counted = c.op("Range", scalar(c, start), scalar(c, end), scalar(c, 1))
    return c.op("Reshape", counted, c.builder.shape(x))


def rerun(c: Call, x: ir.Value) -> ir.Value:
    """Return the operator's result on ``x`` in place of its first operand."""
    return c.builder.copy(c.node, [x, *c.node.inputs[1:]])


def put_back(c: Call, g: ir.Value, places: ir.Value, size: Length, distinct: bool) -> ir.Value:
    """Return ``[T, size]``: ``g``, ``[T, *S]``, added up at ``places``, ``[*S]``."""
    flat = c.op("Reshape", g, c.builder.ints(0, -1))
    index = c.op("Reshape", places, c.builder.ints(1, -1))
    return scatter(c, vector(c, length_of_t(c.builder, g), size), index, flat, 1, distinct)


def scatter(
    c: Call, shape: ir.Value, index: ir.Value, updates: ir.Value, axis: int, distinct: bool
) -> ir.Value:
    """Return zeros of ``shape`` with ``updates`` added along ``axis``.

    ``index`` is broadcast to the shape of ``updates``. Half precision is added in float32,
    which keeps the sum's digits and is what the runtime can do. (ScatterND adds faster, but
    ONNX Runtime 1.32 loses summands there when it runs with several threads.)
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


def by_numbers(c: Call, g: ir.Value, distinct: bool) -> ir.Value:
    """Return the cotangent of the first operand of an operator that moves its elements."""
    x = c.x(0)
    places = rerun(c, numbers(c, x))
    return c.split_t(put_back(c, g, places, volume(c, x), distinct), x)
