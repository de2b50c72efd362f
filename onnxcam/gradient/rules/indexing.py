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
    """A long or unknown axis whose indices may repeat needs a ScatterElements that adds."""
    table, indices = (dims(v) if v is not None else None for v in node.inputs[:2])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    full = table[axis] if table is not None else None
    small = isinstance(full, int) and full <= _SMALL
    one_index = indices is not None and all(d == 1 for d in indices)
    known = constant(node.inputs[1])
    if small or one_index or (known is not None and _consecutive(known)):
        return 13
    return ADDING_OPSET


def _consecutive(indices: np.ndarray) -> bool:
    """Whether constant indices are consecutive, ``i, i + 1, ...``."""
    flat = indices.ravel()
    inside = flat.size > 0 and bool(flat[0] >= 0 or flat[-1] < 0)
    return inside and bool(np.all(np.diff(flat) == 1))


def _gather(c: Call, g: ir.Value) -> ir.Value:
    """Add up g by its indices, in the shape ``[T * axes before, axis, axes after]``."""
    x, indices = c.x(0), c.x(1)
    axis = int(c.attribute("axis", 0)) % c.rank(x)
    full, picked = length(c, x, axis), volume(c, indices)
    after = volume(c, x, axis + 1)
    merged = reshape(c, g, picked, after, merged=(x, axis))
    known = constant(indices)
    small = isinstance(full, int) and full <= _SMALL and c.walk.finite  # 0 * inf is NaN
    if picked == 1 or (known is not None and _consecutive(known)):
        summed = _padded(c, merged, indices, full, picked)
    elif known is not None and isinstance(full, int) and _all_distinct(known, full):
        summed = _reordered(c, merged, known, full)
    elif small or c.builder.opset < ADDING_OPSET:
        summed = _one_hot_product(c, merged, full, picked, after)
    else:
        shape = c.op("Concat", length_of_t(c.builder, merged), vector(c, full, after), axis=0)
        index = c.op("Reshape", indices, c.builder.ints(1, -1, 1))
        summed = scatter(c, shape, index, merged, 1, distinct=False)
    return c.split_t(summed, x)


rule("Gather", _gather, None, opset=_gather_opset)


def _padded(c: Call, g: ir.Value, indices: ir.Value, full: Length, picked: Length) -> ir.Value:
    """Pad consecutive indices with zeros to the full axis."""
    known = constant(indices)
    if known is None:
        first = c.op("Cast", c.op("Reshape", indices, c.builder.ints(-1)), to=ir.DataType.INT64)
        start: Length = c.op("Mod", first, vector(c, full))  # a negative index counts from the end
    else:
        start = int(known.ravel()[0])
        start = start if start >= 0 else combine(c, "Add", start, full)
    end = combine(c, "Sub", full, start, picked)
    return c.op("Pad", g, vector(c, 0, start, 0, 0, end, 0))


def _all_distinct(indices: np.ndarray, full: int) -> bool:
    return np.unique(indices % full).size == indices.size


def _reordered(c: Call, g: ir.Value, indices: np.ndarray, full: int) -> ir.Value:
    """Reorder the axis, with zeros where nothing was read."""
    flat = indices.ravel() % full
    sources = np.full(full, flat.size, np.int64)
    sources[flat] = np.arange(flat.size)
    if flat.size < full:  # unread elements take the row of zeros at the end
        g = c.op("Pad", g, c.builder.ints(0, 0, 0, 0, 1, 0))
    return c.op("Gather", g, c.builder.constant(sources), axis=1)


def _one_hot_product(c: Call, g: ir.Value, full: Length, picked: Length, after: Length) -> ir.Value:
    """Return the product with the one-hot rows of the indices, ``[picked, full]``."""
    flat = c.op("Reshape", c.x(1), c.builder.ints(-1))
    flat = c.op("Cast", flat, to=ir.DataType.INT64)
    if not isinstance(picked, int) or picked == 0:
        # One more row, of zeros: ONNX Runtime 1.31 leaves a product over nothing unset.
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
stop("NonMaxSuppression", "it returns indices, which are integers")
