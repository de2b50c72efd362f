"""Slice: pad the cotangent with zeros, for bounds that may be computed at run time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import gradient_by_ids
from onnxcam.gradient.helpers.lengths import Length, combine, length, reshape, vector
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant

_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Cut:
    """How one axis is sliced: element ``i`` of the result is ``lowest + stride * i`` of x.

    Where ``flipped``, i counts from the end of the result.
    """

    axis: int
    full: Length  # of x
    count: Length  # of y
    lowest: Length
    stride: int
    flipped: bool


def _slice(c: Call, g: ir.Value) -> ir.Value:
    """Flip reversed axes, put zeros between strided elements, pad to the full length."""
    x, ints = c.x(0), c.builder.ints
    cuts = _cuts(c)
    if cuts is None:
        return gradient_by_ids(c, g, distinct=True)
    flipped = [cut.axis + 1 for cut in cuts if cut.flipped]
    if flipped:
        back = ints(*[-1] * len(flipped))
        g = c.op("Slice", g, back, ints(*[-_END] * len(flipped)), ints(*flipped), back)
    g = _strided(c, g, [cut for cut in cuts if cut.stride > 1])
    before: list[Length] = [0] * (c.rank(x) + 1)
    after: list[Length] = [0] * (c.rank(x) + 1)
    for cut in cuts:
        filled = combine(c, "Mul", cut.count, cut.stride)
        before[cut.axis + 1] = cut.lowest
        after[cut.axis + 1] = combine(c, "Sub", cut.full, cut.lowest, filled)
    if not any([*before, *after]):
        return g
    return c.op("Pad", g, vector(c, *before, *after))


rule("Slice", _slice, None, None, None, None)


def _strided(c: Call, g: ir.Value, cuts: list[_Cut]) -> ir.Value:
    """Put ``stride - 1`` zeros after each element along the strided axes."""
    if not cuts:
        return g
    rank = c.rank(c.y)
    strides = {cut.axis: cut.stride for cut in cuts}
    new: list[int] = []  # an axis of length 1 after each strided one, which Pad fills
    pads: list[int] = [0]
    shape: list[Length] = []
    for axis in range(rank):
        stride = strides.get(axis, 1)
        shape.append(combine(c, "Mul", length(c, c.y, axis), stride))
        pads.append(0)
        if stride > 1:
            new.append(len(pads))
            pads.append(stride - 1)
    apart = c.op("Unsqueeze", g, c.builder.ints(*new))
    padded = c.op("Pad", apart, c.builder.ints(*[0] * len(pads), *pads))
    return reshape(c, padded, *shape)


def _cuts(c: Call) -> list[_Cut] | None:
    """Read the operands; ``None`` if axes or steps are only known at run time."""
    x = c.x(0)
    axes, steps = constant(c.operand(3)), constant(c.operand(4))
    sliced = c.static(c.x(1), 0)
    if sliced is None or (axes is None and c.operand(3) is not None):
        return None
    if steps is None and c.operand(4) is not None:
        return None
    which = range(sliced) if axes is None else (int(a) % c.rank(x) for a in axes)
    strides = [1] * sliced if steps is None else steps.tolist()
    cuts = []
    for i, (axis, step) in enumerate(zip(which, strides, strict=True)):
        full, count = length(c, x, axis), length(c, c.y, axis)
        lowest = _lowest(c, _start(c, i), step, full, count)
        cuts.append(_Cut(axis, full, count, lowest, abs(step), step < 0))
    return cuts


def _start(c: Call, index: int) -> Length:
    known = constant(c.operand(1))
    if known is not None:
        return int(known[index])
    given = c.op("Slice", c.x(1), c.builder.ints(index), c.builder.ints(index + 1))
    return c.op("Cast", given, to=ir.DataType.INT64)


def _lowest(c: Call, start: Length, step: int, full: Length, count: Length) -> Length:
    """Return the smallest index that is read, or any valid one if none is."""
    if isinstance(start, int):
        start = combine(c, "Add", start, full) if start < 0 else start
    else:
        negative = c.op("Less", start, c.builder.ints(0))
        start = c.op("Where", negative, c.op("Add", start, vector(c, full)), start)
    if step < 0:
        start = combine(c, "Min", start, combine(c, "Sub", full, 1))
        last = combine(c, "Mul", combine(c, "Sub", count, 1), step)
        start = combine(c, "Add", start, last)
    return combine(c, "Max", combine(c, "Min", start, full), 0)
