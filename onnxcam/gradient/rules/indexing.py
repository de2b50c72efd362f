"""Operators that read elements by their index; an element read twice gets both cotangents."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET, gradient_by_ids, scatter
from onnxcam.gradient.helpers.lengths import (
    Length,
    combine,
    length,
    reshape,
    scalar,
    vector,
    volume,
)
from onnxcam.gradient.registry import rule, stop
from onnxcam.graph.values import constant, dims

_SMALL = 512  # up to here, a product with one-hot rows is no slower than scattering


def _gather_opset(node: ir.Node) -> int:
    """A long or unknown axis needs an adding ScatterElements, if indices may repeat."""
    table, indices = (dims(v) if v is not None else None for v in node.inputs[:2])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    full = table[axis] if table is not None else None
    small = isinstance(full, int) and full <= _SMALL
    single = indices is not None and all(d == 1 for d in indices)
    known = constant(node.inputs[1])
    if small or single or (known is not None and _runs_on(known)):
        return 13
    return ADDING_OPSET


def _runs_on(indices: np.ndarray) -> bool:
    """Whether constant indices are a piece of the axis, in its order."""
    flat = indices.ravel()
    inside = flat.size > 0 and bool(flat[0] >= 0 or flat[-1] < 0)
    return inside and bool(np.all(np.diff(flat) == 1))


def _gather(c: Call, g: ir.Value) -> ir.Value:
    """Sum along the axis, seen as the middle one of three: ``[T and before, axis, after]``."""
    x, indices = c.x(0), c.x(1)
    axis = int(c.attribute("axis", 0)) % c.rank(x)
    full, picked = length(c, x, axis), volume(c, indices)
    after = volume(c, x, axis + 1)
    folded = reshape(c, g, picked, after, merged=(x, axis))
    known = constant(indices)
    small = isinstance(full, int) and full <= _SMALL and c.walk.finite  # 0 * inf is no 0
    if picked == 1 or (known is not None and _runs_on(known)):
        summed = _padded(c, folded, indices, full, picked)
    elif known is not None and isinstance(full, int) and _all_distinct(known, full):
        summed = _placed(c, folded, known, full)
    elif small or c.builder.opset < ADDING_OPSET:
        summed = _multiplied(c, folded, full, picked, after)
    else:
        shape = c.op("Concat", length_of_t(c.builder, folded), vector(c, full, after), axis=0)
        places = c.op("Reshape", indices, c.builder.ints(1, -1, 1))
        summed = scatter(c, shape, places, folded, 1, distinct=False)
    return c.split_t(summed, x)


rule("Gather", _gather, None, opset=_gather_opset)


def _padded(c: Call, g: ir.Value, indices: ir.Value, full: Length, picked: Length) -> ir.Value:
    """Put one piece of the axis back between zeros."""
    known = constant(indices)
    if known is None:
        first = c.op("Cast", c.op("Reshape", indices, c.builder.ints(-1)), to=ir.DataType.INT64)
        start: Length = c.op("Mod", first, vector(c, full))  # counts from the end below 0
    else:
        start = int(known.ravel()[0])
        start = start if start >= 0 else combine(c, "Add", start, full)
    end = combine(c, "Sub", full, start, picked)
    return c.op("Pad", g, vector(c, 0, start, 0, 0, end, 0))


def _all_distinct(indices: np.ndarray, full: int) -> bool:
    return np.unique(indices % full).size == indices.size


def _placed(c: Call, g: ir.Value, indices: np.ndarray, full: int) -> ir.Value:
    """Reorder the axis, with zeros where nothing was read."""
    flat = indices.ravel() % full
    rows = np.full(full, flat.size, np.int64)
    rows[flat] = np.arange(flat.size)
    if flat.size < full:  # one row of zeros follows the picked
        g = c.op("Pad", g, c.builder.ints(0, 0, 0, 0, 1, 0))
    return c.op("Gather", g, c.builder.constant(rows), axis=1)


def _multiplied(c: Call, g: ir.Value, full: Length, picked: Length, after: Length) -> ir.Value:
    """Return the product with the one-hot rows of the indices, ``[picked, full]``."""
    flat = c.op("Reshape", c.x(1), c.builder.ints(-1))
    flat = c.op("Cast", flat, to=ir.DataType.INT64)
    if not isinstance(picked, int) or picked == 0:
        # A row of zeros more: ONNX Runtime 1.31 leaves a product over nothing unset.
        g = c.op("Pad", g, c.builder.ints(0, 0, 0, 0, 1, 0))
        flat = c.op("Concat", flat, c.builder.ints(0), axis=0)
    pair = c.builder.constant(np.array([0, 1], np.float32))
    hot = c.op("OneHot", flat, scalar(c, full), pair, axis=0 if after != 1 else 1)
    if c.kind != ir.DataType.FLOAT:
        hot = c.op("Cast", hot, to=c.kind)
    if after != 1:
        return c.op("MatMul", hot, g)
    return c.op("MatMul", c.op("Squeeze", g, c.builder.ints(2)), hot)


def _gather_elements(c: Call, g: ir.Value) -> ir.Value:
    x = c.x(0)
    shape = c.op("Concat", length_of_t(c.builder, g), c.builder.shape(x), axis=0)
    return scatter(c, shape, c.x(1), g, c.axis(x), distinct=False)


rule("GatherElements", _gather_elements, None, opset=ADDING_OPSET)
rule("GatherND", lambda c, g: gradient_by_ids(c, g, distinct=False), None, opset=ADDING_OPSET)
rule("Compress", lambda c, g: gradient_by_ids(c, g, distinct=True), None)
stop("NonMaxSuppression", "it returns places, which are integers")
