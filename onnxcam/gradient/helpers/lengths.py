"""Lengths of axes: Python integers where they are known, computed at run time elsewhere."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.graph.values import constant

Length = int | ir.Value  # an ir.Value is an int64 vector of one element

_KNOWN: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.floordiv,
    "Min": min,
    "Max": max,
}
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


def length(c: Call, value: ir.Value, axis: int) -> Length:
    """Return the length of one axis."""
    known = c.static(value, axis)
    if known is not None:
        return known
    return c.op("Gather", c.op("Shape", value), c.builder.ints(axis), axis=0)


def given(c: Call, index: int) -> Length:
    """Return an operand that holds one number."""
    known = constant(c.operand(index))
    if known is not None:
        return int(known.item())
    return c.op("Cast", c.op("Reshape", c.x(index), c.builder.ints(1)), to=ir.DataType.INT64)


def combine(c: Call, op_type: str, *lengths: Length) -> Length:
    """Apply Add, Sub, Mul, Div, Min or Max, from the left."""

    def apply(a: Length, b: Length) -> Length:
        if isinstance(a, int) and isinstance(b, int):
            return _KNOWN[op_type](a, b)
        if isinstance(b, int) and b == _NEUTRAL.get(op_type):
            return a
        return c.op(op_type, _one(c, a), _one(c, b))

    return reduce(apply, lengths)


def vector(c: Call, *lengths: Length) -> ir.Value:
    """Return the lengths as one int64 vector."""
    known = [n for n in lengths if isinstance(n, int)]
    if len(known) == len(lengths):
        return c.builder.ints(*known)
    if len(lengths) == 1:
        return _one(c, lengths[0])
    return c.op("Concat", *(_one(c, n) for n in lengths), axis=0)


def scalar(c: Call, value: Length) -> ir.Value:
    """Return a length as an int64 scalar."""
    if isinstance(value, int):
        return c.builder.constant(np.int64(value))
    return c.op("Squeeze", value, c.builder.ints(0))


def volume(c: Call, value: ir.Value, first: int = 0, last: int | None = None) -> Length:
    """Return the product of the lengths of ``axes[first:last]``."""
    sizes = c.dims(value)[first:last]
    known = [d for d in sizes if isinstance(d, int)]
    if len(known) == len(sizes):
        return reduce(operator.mul, known, 1)
    end = c.rank(value) if last is None else last
    part = c.op("Slice", c.op("Shape", value), c.builder.ints(first), c.builder.ints(end))
    return c.op("ReduceProd", part, keepdims=1)


def reshape(
    c: Call, g: ir.Value, *lengths: Length, merged: tuple[ir.Value, int] | None = None
) -> ir.Value:
    """Return ``g`` in the shape ``[T, *lengths]``; a length may be 0 at run time.

    ``merged = (value, axis)`` merges the value's axes before ``axis`` into ``T``.
    """
    if all(isinstance(n, int) and n for n in lengths):
        return c.op("Reshape", g, vector(c, -1, *lengths))
    first: Length = length_of_t(c.builder, g)
    if merged is not None:
        first = combine(c, "Mul", first, volume(c, merged[0], 0, merged[1]))
    zeros = {"allowzero": 1} if c.builder.opset >= 14 else {}
    return c.op("Reshape", g, vector(c, first, *lengths), **zeros)


def _one(c: Call, value: Length) -> ir.Value:
    return c.builder.ints(value) if isinstance(value, int) else value
