"""Operators that order, choose or accumulate along an axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import (
    element_ids,
    gradient_by_ids,
    scatter,
    scatter_by_ids,
)
from onnxcam.gradient.helpers.lengths import volume
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant


def _top_k(c: Call, g: ir.Value) -> ir.Value:
    """Each cotangent goes back to its index; of equal elements TopK picks the first."""
    x, indices = c.x(0), c.node.outputs[1]
    if not indices.name:
        kept = {name: a.value for name, a in c.node.attributes.items()}
        _, indices = c.builder.op_many("TopK", c.node.inputs, 2, **kept)
    shape = c.op("Concat", length_of_t(c.builder, g), c.builder.shape(x), axis=0)
    return scatter(c, shape, indices, g, c.axis(x, -1), distinct=True)


rule("TopK", _top_k, None)


def _unique(c: Call, g: ir.Value) -> ir.Value:
    """Each cotangent goes back to where its value occurs first."""
    x, kept = c.x(0), {name: a.value for name, a in c.node.attributes.items()}
    _, ids = c.builder.op_many("Unique", [x], 2, **kept)
    if "axis" in kept:
        ids = c.op("Gather", element_ids(c, x), ids, axis=int(c.attribute("axis", 0)))
    return c.split_t(scatter_by_ids(c, g, ids, volume(c, x), distinct=True), x)


rule("Unique", _unique)
rule("ReverseSequence", lambda c, g: gradient_by_ids(c, g, distinct=True), None)


def _cum_sum(c: Call, g: ir.Value) -> ir.Value:
    """Sum in the opposite direction; ``exclusive`` stays as it is."""
    known, axis = constant(c.operand(1)), c.x(1)
    if known is None:
        negative = c.op("Less", axis, c.op("Sub", axis, axis))
        shift = c.op("Cast", c.op("Not", negative), to=axis.dtype or ir.DataType.INT64)
        axis = c.op("Add", axis, shift)  # T comes first
    else:
        axis = c.builder.constant(np.int64(int(known.item()) % c.rank(c.x(0)) + 1))
    settings = {
        "exclusive": int(c.attribute("exclusive", 0)),
        "reverse": 1 - int(c.attribute("reverse", 0)),
    }
    return c.op("CumSum", g, axis, **settings)


rule("CumSum", _cum_sum, None)


def _trilu(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Trilu", g, c.operand(1), upper=int(c.attribute("upper", 1)))


rule("Trilu", _trilu, None, opset=14)


def _one_hot(c: Call, g: ir.Value) -> ir.Value:
    """For y = off + (on - off) hot: d off = sum(g (1 - hot)), d on = sum(g hot)."""
    indices = c.op("Cast", c.x(0), to=ir.DataType.INT64)
    depth = c.op("Cast", c.op("Reshape", c.x(1), c.builder.ints()), to=ir.DataType.INT64)
    pair = c.builder.constant(np.array([0, 1], np.int64))
    axis = int(c.attribute("axis", -1))
    hot = c.op("Cast", c.op("OneHot", indices, depth, pair, axis=axis), to=c.kind)
    axes = list(range(-c.rank(c.y), 0))
    on = c.builder.sum(c.op("Mul", g, hot), axes)
    off = c.op("Sub", c.builder.sum(g, axes), on)
    both = [c.op("Unsqueeze", part, c.builder.ints(1)) for part in (off, on)]
    return c.op("Concat", *both, axis=1)


rule("OneHot", None, None, _one_hot)


def _range_step(c: Call, g: ir.Value) -> ir.Value:
    """For y = start + i delta: d delta = sum(g i)."""
    number = c.op("Cast", element_ids(c, c.y), to=c.kind)
    return c.builder.sum(c.op("Mul", g, number), [-1])


rule("Range", lambda c, g: c.builder.sum(g, [-1]), None, _range_step)
