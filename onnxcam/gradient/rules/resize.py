"""Resizing, which is linear in x and separable: ``y = M x`` along each axis.

In every mode the operator itself, run on an identity matrix, gives ``M^T``; dx applies this axis by
axis. Where all lengths are known, the runtime folds the matrices when the session is made.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import length, vector
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant

_CROPS = "the region that it crops depends on what it is differentiated by"
_HALF_PIXELS = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")


def _resize(c: Call, g: ir.Value) -> ir.Value:
    repeats = _repeats(c)
    if repeats is not None:
        return _summed(c, g, repeats)
    for entry, axis in enumerate(_axes(c)):
        if not _unchanged(c, entry, axis):
            g = _along(c, _transposed(c, entry, axis), g, axis - c.rank(c.x(0)))
    return g


def _region(c: Call, g: ir.Value) -> None:
    if c.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise c.refuse(_CROPS)


rule("Resize", _resize, _region, None, None, refuses=[_CROPS])


def _axes(c: Call) -> list[int]:
    """Return the axes that the entries of roi, scales and sizes belong to."""
    rank = c.rank(c.x(0))
    return [int(a) % rank for a in c.attribute("axes", list(range(rank)))]


def _given(c: Call, index: int) -> ir.Value | None:
    """Return an operand, ``None`` also where an exporter wrote an empty one instead."""
    value = c.operand(index)
    return None if value is None or c.dims(value) == [0] else value


def _stretches(c: Call) -> bool:
    policy = c.attribute("keep_aspect_ratio_policy", "stretch")
    return policy == "stretch" or _given(c, 2) is not None


def _repeats(c: Call) -> list[int] | None:
    """Return how often elements are repeated along each axis, if that is all the node does."""
    system = c.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = c.attribute("nearest_mode", "round_prefer_floor")
    to_the_nearest = system in _HALF_PIXELS and rounding.startswith("round")
    x, y, rank = c.x(0), c.y, c.rank(c.x(0))
    if c.attribute("mode", "nearest") != "nearest" or not 3 <= rank <= 5 or not _stretches(c):
        return None
    if not to_the_nearest and (system, rounding) != ("asymmetric", "floor"):
        return None
    scales = constant(_given(c, 2))
    found = [1.0] * rank
    for entry, axis in enumerate(_axes(c)):
        before, after = c.static(x, axis), c.static(y, axis)
        if scales is not None:
            found[axis] = float(scales[entry])
        elif _given(c, 2) is None and before and after:
            found[axis] = after / before
        elif not _unchanged(c, entry, axis):
            return None
    whole = [int(s) for s in found]
    return whole if whole == found and whole[:2] == [1, 1] and min(whole) > 0 else None


def _summed(c: Call, g: ir.Value, repeats: list[int]) -> ir.Value:
    """Sum g over the block of each repeated element: its average times its size."""
    block = repeats[2:]
    mean = c.op("AveragePool", c.merge_t(g, c.y), kernel_shape=block, strides=block)
    return c.split_t(c.op("Mul", mean, c.like(float(np.prod(block)))), c.x(0))


def _unchanged(c: Call, entry: int, axis: int) -> bool:
    """Whether an axis is known to keep its length and values."""
    x = c.x(0)
    if axis == 0 and c.rank(x) > 3 and c.attribute("mode", "nearest") != "nearest":
        return True  # interpolation is defined for space only
    if _given(c, 2) is not None:
        scales = constant(c.operand(2))
        return scales is not None and scales[entry] == 1
    before, after = c.dims(x)[axis], c.dims(c.y)[axis]
    return before is not None and before == after and _stretches(c)


def _transposed(c: Call, entry: int, axis: int) -> ir.Value:
    """Return the matrix ``[in, out]`` of an axis: the operator on an identity matrix.

    The matrix is an image ``[1, in, in, D]``, constant along its last axis. That axis is resized as
    well: it decides the scale where the policy takes that from another axis, and it changes length
    where the scale keeps that of the axis (else the runtime would not resize at all).
    """
    op, ints = c.op, c.builder.ints
    count = length(c, c.x(0), axis)
    square = op("Expand", c.like(0.0), vector(c, count, count))
    image = op("Unsqueeze", op("EyeLike", square), ints(0, 3))
    kept = {name: a.value for name, a in c.node.attributes.items() if name != "axes"}
    kept["extrapolation_value"] = 0.0
    roi, scales, sizes = _roi(c, entry), None, None
    if _given(c, 2) is not None:
        one = c.builder.constant(np.ones(2, np.float32))
        scales = op("Concat", one, _part(c, 2, entry), _some_change(c), axis=0)
    elif _stretches(c):
        sizes = op("Concat", vector(c, 1, count), _part(c, 3, entry), ints(1), axis=0)
    else:
        before, after = _deciding(c)
        image = op("Expand", image, op("Concat", ints(1, 1, 1), before, axis=0))
        sizes = op("Concat", _part(c, 3, entry), after, axis=0)
        roi = None if roi is None else op("Gather", roi, ints(2, 3, 6, 7), axis=0)
        kept["axes"] = [2, 3]
    (resized,) = c.builder.op_many("Resize", [image, roi, scales, sizes], 1, **kept)
    return op("Squeeze", op("Slice", resized, ints(0), ints(1), ints(3)), ints(0, 3))


def _part(c: Call, index: int, entry: int) -> ir.Value:
    """Return one element of an operand, as a vector."""
    known = constant(c.operand(index))
    if known is not None:
        return c.builder.constant(known[entry : entry + 1])
    return c.op("Gather", c.x(index), c.builder.ints(entry), axis=0)


def _roi(c: Call, entry: int) -> ir.Value | None:
    """Return the region of the identity matrix's image."""
    roi = _given(c, 1)
    if roi is None or c.attribute("coordinate_transformation_mode", "") != "tf_crop_and_resize":
        return None
    zero, one = (c.builder.constant(np.full(2, v), roi.dtype) for v in (0.0, 1.0))
    last_zero, last_one = (c.builder.constant(np.full(1, v), roi.dtype) for v in (0.0, 1.0))
    start, end = _part(c, 1, entry), _part(c, 1, entry + len(_axes(c)))
    return c.op("Concat", zero, start, last_zero, one, end, last_one, axis=0)


def _some_change(c: Call) -> ir.Value:
    """Return a scale: 2 if any length changes, 1 if none does."""
    known = [d for v in (c.x(0), c.y) for d in c.dims(v) if isinstance(d, int)]
    if len(known) == 2 * c.rank(c.y):
        changed = known[: len(known) // 2] != known[len(known) // 2 :]
        return c.builder.constant(np.full(1, 1.0 + changed, np.float32))
    before, after = c.op("Shape", c.x(0)), c.op("Shape", c.y)
    changes = c.op("Cast", c.op("Not", c.op("Equal", before, after)), to=ir.DataType.FLOAT)
    return c.op("Add", c.op("ReduceMax", changes, keepdims=1), c.builder.constant(np.float32(1)))


def _deciding(c: Call) -> tuple[ir.Value, ir.Value]:
    """Return both lengths of the axis whose scale the policy takes for all axes."""
    before = c.op("Gather", c.op("Shape", c.x(0)), c.builder.ints(*_axes(c)), axis=0)
    after, kind = c.x(3), ir.DataType.FLOAT
    scales = c.op("Div", c.op("Cast", after, to=kind), c.op("Cast", before, to=kind))
    larger = c.attribute("keep_aspect_ratio_policy", "") == "not_smaller"
    found = c.op("ArgMax" if larger else "ArgMin", scales, axis=0, keepdims=1)
    return c.op("Gather", before, found, axis=0), c.op("Gather", after, found, axis=0)


def _along(c: Call, matrix: ir.Value, g: ir.Value, axis: int) -> ir.Value:
    """Return the product of ``matrix``, ``[in, out]``, with an axis counted from the end."""
    if axis == -1:
        return c.op("MatMul", g, c.op("Transpose", matrix, perm=[1, 0]))
    if axis == -2:
        return c.op("MatMul", matrix, g)
    order = list(range(c.rank(c.x(0)) + 1))
    order[axis], order[-2] = order[-2], order[axis]
    moved = c.op("MatMul", matrix, c.op("Transpose", g, perm=order))
    return c.op("Transpose", moved, perm=order)
