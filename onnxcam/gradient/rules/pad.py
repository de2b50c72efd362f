"""Padding and cropping."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET, element_ids, scatter_by_ids
from onnxcam.gradient.helpers.lengths import length, vector, volume
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant


def _mode(node: ir.Node) -> str:
    return node.attributes.get_string("mode") or "constant"


def _pad(c: Call, g: ir.Value) -> ir.Value:
    """Crop what was padded, and pad with zeros what was cropped.

    In other modes elements are repeated: the padded element ids tell where to add up g.
    """
    if _mode(c.node) != "constant":
        x, axes = c.x(0), c.operand(3)
        rest = [] if axes is None else [None, axes]  # the constant is not read, and of another type
        ids = c.builder.copy(c.node, [element_ids(c, x), c.x(1), *rest])
        return c.split_t(scatter_by_ids(c, g, ids, volume(c, x), distinct=False), x)
    pads = _known_pads(c)
    if pads is None:
        return c.op("Pad", g, _opposite(c))
    if (pads < 0).any():
        opposite = np.insert(-pads, 0, 0, axis=1)  # T stays as it is
        return c.op("Pad", g, c.builder.constant(opposite.ravel()))
    padded = [i for i in range(pads.shape[1]) if pads[:, i].any()]
    if not padded:
        return g
    far = np.iinfo(np.int64).max
    starts = [int(pads[0, i]) for i in padded]
    ends = [-int(pads[1, i]) if pads[1, i] else far for i in padded]
    ints = c.builder.ints
    return c.op("Slice", g, ints(*starts), ints(*ends), ints(*(i + 1 for i in padded)))


def _known_pads(c: Call) -> np.ndarray | None:
    """Return the pads of every axis, ``[2, rank]``, where they are constant."""
    pads, axes = constant(c.operand(1)), constant(c.operand(3))
    if pads is None or (axes is None and c.operand(3) is not None):
        return None
    found = np.zeros((2, c.rank(c.x(0))), np.int64)
    found[:, slice(None) if axes is None else axes] = pads.reshape(2, -1)
    return found


def _opposite(c: Call) -> ir.Value:
    """Return the pads that undo pads known only at run time, ``[2 * (1 + rank)]``."""
    op, ints, axes = c.op, c.builder.ints, c.operand(3)
    table = op("Reshape", c.x(1), ints(2, -1))
    if axes is not None:
        index = op("Expand", op("Cast", axes, to=ir.DataType.INT64), op("Shape", table))
        none = c.builder.constant(np.zeros((2, c.rank(c.x(0))), np.int64))
        table = op("ScatterElements", none, index, table, axis=1)
    first = c.builder.constant(np.zeros((2, 1), np.int64))
    return op("Reshape", op("Concat", first, op("Neg", table), axis=1), ints(-1))


def _pad_value(c: Call, g: ir.Value) -> ir.Value:
    """Return the sum of g over the padding, where the constant stands."""
    if _mode(c.node) != "constant":  # it is not read
        shape = c.op("Concat", length_of_t(c.builder, g), c.builder.shape(c.x(2)), axis=0)
        return c.op("Expand", c.like(0.0), shape)
    empty = c.op("Expand", c.like(0.0), c.builder.shape(c.x(0)))
    stands = c.builder.copy(c.node, [empty, c.x(1), c.like(1.0), *c.node.inputs[3:]])
    taken = c.op("Mul", g, stands)
    return c.split_t(c.builder.sum(taken, range(1, c.rank(c.y) + 1)), c.x(2))


rule(
    "Pad",
    _pad,
    None,
    _pad_value,
    None,
    opset=lambda n: 13 if _mode(n) == "constant" else ADDING_OPSET,
)


def _center_crop_pad(c: Call, g: ir.Value) -> ir.Value:
    """Undo it by another CenterCropPad, to the lengths of x."""
    rank = c.rank(c.x(0))
    axes = [a - rank if a >= 0 else a for a in c.attribute("axes", list(range(rank)))]
    lengths = vector(c, *(length(c, c.x(0), a) for a in axes))
    return c.op("CenterCropPad", g, lengths, axes=axes)


rule("CenterCropPad", _center_crop_pad, None, opset=18)
