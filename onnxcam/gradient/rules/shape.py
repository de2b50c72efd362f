"""Operators that move elements: reshaping, joining, repeating.

Their gradients move the cotangents back; where an element was read twice, both are added.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import Cotangents, length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import Length, combine, length, reshape, vector
from onnxcam.gradient.registry import joint, rule
from onnxcam.graph.values import constant


def _back_to_shape(c: Call, g: ir.Value) -> ir.Value:
    return c.split_t(g, c.x(0))


def _back(c: Call, g: ir.Value, op: str, full: ir.Value) -> ir.Value:
    """Undo Squeeze or Unsqueeze by ``op``, without computing the operand's shape at run time."""
    x, axes = c.x(0), constant(c.operand(1))
    if axes is None or (x.shape is not None and x.shape.is_static()):
        return c.split_t(g, x)
    return c.op(op, g, c.builder.ints(*(int(a) % c.rank(full) + 1 for a in axes.ravel())))


rule("Reshape", _back_to_shape, None)
rule("Squeeze", lambda c, g: _back(c, g, "Unsqueeze", c.x(0)), None)
rule("Unsqueeze", lambda c, g: _back(c, g, "Squeeze", c.y), None)
rule("Flatten", _back_to_shape)


def _transpose(c: Call, g: ir.Value) -> ir.Value:
    rank = c.rank(c.x(0))
    order = c.attribute("perm", list(range(rank))[::-1])
    return c.op("Transpose", g, perm=[0, *(int(i) + 1 for i in np.argsort(order))])


rule("Transpose", _transpose)
rule("Expand", lambda c, g: g, None, broadcasts=True)


def _concat(c: Call, g: ir.Value, index: int) -> ir.Value:
    axis = c.axis(c.y)
    lengths = [length(c, c.x(i), axis) for i in range(index + 1)]
    start = combine(c, "Add", 0, *lengths[:-1])
    end = combine(c, "Add", start, lengths[-1])
    return c.op("Slice", g, vector(c, start), vector(c, end), c.builder.ints(axis))


rule("Concat", variadic=_concat)


def _split(c: Call, gs: Cotangents) -> ir.Value:
    axis = c.axis(c.x(0))
    T = length_of_t(c.builder, next(g for g in gs if g is not None))
    parts = []
    for g, output in zip(gs, c.node.outputs, strict=True):
        if g is None:  # nothing differentiable reads this part
            shape = c.op("Concat", T, c.builder.shape(output), axis=0)
            g = c.op("Expand", c.like(0.0), shape)
        parts.append(g)
    return c.op("Concat", *parts, axis=axis)


joint("Split", _split, None)


def _tile(c: Call, g: ir.Value) -> ir.Value:
    """Split each axis of g into ``[repeats, length]`` and sum over the repeats."""
    x = c.x(0)
    rank = c.rank(x)
    known = constant(c.operand(1))
    shape: list[Length] = []
    repeated = []
    for axis in range(rank):
        if known is None:
            repeats: Length = c.op("Slice", c.x(1), c.builder.ints(axis), c.builder.ints(axis + 1))
        else:
            repeats = int(known[axis])
        if repeats != 1:
            repeated.append(len(shape) + 1)
            shape.append(repeats)
        shape.append(length(c, x, axis))
    if not repeated:
        return g
    return c.builder.sum(reshape(c, g, *shape), repeated)


rule("Tile", _tile, None)
