"""Reductions.

Axes are counted from the end, so that they hold under ``T`` as well. They may be an attribute,
a stored constant or, from opset 13 on for ``ReduceSum`` and from 18 on for the others, computed.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import rule
from onnxcam.graph.values import constant


def _axes(c: Call) -> list[int] | None:
    """Return the reduced axes, ``None`` where only the run knows them."""
    rank = c.rank(c.x(0))
    axes = c.attribute("axes", None)
    if axes is None and c.operand(1) is not None:
        stored = constant(c.operand(1))
        if stored is None:
            return None
        axes = stored.tolist()
    if not axes:
        return [] if c.attribute("noop_with_empty_axes", 0) else list(range(-rank, 0))
    return sorted(a % rank - rank for a in axes)


def _kept_shape(c: Call) -> ir.Value:
    """Return the shape that the result has, or would have, with ``keepdims``."""
    axes, shape, one = c.x(1), c.op("Shape", c.x(0)), c.builder.ints(1)
    count = c.op("Shape", axes)
    kept = c.op("ScatterElements", shape, axes, c.op("Expand", one, count))
    if c.attribute("noop_with_empty_axes", 0):
        return kept
    none = c.op("Equal", count, c.builder.ints(0))
    return c.op("Where", none, one, kept)


def _spread(c: Call, value: ir.Value) -> ir.Value:
    """Give a reduced value, or its cotangent, its reduced axes back with length 1."""
    if c.attribute("keepdims", 1):
        return value
    axes = _axes(c)
    if axes is None:
        leading = [] if value is c.y else [c.builder.ints(-1)]
        return c.op("Reshape", value, c.op("Concat", *leading, _kept_shape(c), axis=0))
    return c.op("Unsqueeze", value, c.builder.ints(*axes)) if axes else value


def _expand(c: Call, g: ir.Value) -> ir.Value:
    """Repeat ``[T, *reduced]`` to ``[T, *shape of the input]``."""
    sizes = c.dims(c.x(0))
    if all(isinstance(d, int) for d in sizes):
        return c.op("Expand", g, c.builder.ints(1, *sizes))  # type: ignore[arg-type]
    return c.op("Expand", g, c.op("Concat", c.builder.ints(1), c.op("Shape", c.x(0)), axis=0))


def _total(c: Call, value: ir.Value) -> ir.Value:
    """Sum a value of the input's shape over the reduced axes, which stay with length 1."""
    axes = _axes(c)
    if axes is not None:
        return c.builder.sum(value, axes, keepdims=True)
    noop = int(c.attribute("noop_with_empty_axes", 0))
    return c.op("ReduceSum", value, c.x(1), keepdims=1, noop_with_empty_axes=noop)


def _count(c: Call) -> ir.Value:
    """Return how many elements each result is made of, as a float scalar."""
    axes, x = _axes(c), c.x(0)
    if axes is None:
        whole, parts = (c.op("Cast", c.op("Size", v), to=c.kind) for v in (x, c.y))
        return c.op("Div", whole, parts)
    lengths = [c.static(x, a) for a in axes]
    known = [n for n in lengths if n is not None]
    if len(known) == len(lengths):
        product = 1
        for length in known:
            product *= length
        return c.like(float(product))
    places = c.builder.ints(*(a % c.rank(x) for a in axes))
    sizes = c.op("Gather", c.op("Shape", x), places, axis=0)
    return c.op("Cast", c.op("ReduceProd", sizes, keepdims=0), to=c.kind)


def _extreme(c: Call, g: ir.Value) -> ir.Value:
    """Max and Min: equal elements share the gradient, as in PyTorch's amax."""
    hit = c.op("Equal", c.x(0), _spread(c, c.y))
    ones = c.op("Cast", hit, to=c.kind)
    return c.op("Mul", _spread(c, g), c.op("Div", ones, _total(c, ones)))


def _product(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = g times the product of the others.

    That is p / x, with p the product of all that are not 0; with one 0 it is p there and 0
    elsewhere, with more it is 0.
    """
    x = c.x(0)
    is_zero = c.op("Equal", x, c.like(0.0))
    filled = c.op("Where", is_zero, c.like(1.0), x)
    rest = c.op("Div", _spread(c, c.builder.copy(c.node, [filled, *c.node.inputs[1:]])), filled)
    zeros = c.op("Cast", is_zero, to=c.kind)
    elsewhere = c.op("Sub", _total(c, zeros), zeros)
    alone = c.op("Equal", elsewhere, c.like(0.0))
    return c.op("Mul", _spread(c, g), c.op("Where", alone, rest, c.like(0.0)))


def _l1(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", _spread(c, g), c.op("Sign", c.x(0)))


def _l2(c: Call, g: ir.Value) -> ir.Value:
    """The direction x / |x|; 0 at the origin, as in PyTorch."""
    length = _spread(c, c.y)
    direction = c.op("Div", c.x(0), length)
    zero = c.op("Equal", length, c.like(0.0))
    return c.op("Mul", _spread(c, g), c.op("Where", zero, c.like(0.0), direction))


def _sum_square(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", _spread(c, g), c.op("Mul", c.x(0), c.like(2.0)))


def _log_sum(c: Call, g: ir.Value) -> ir.Value:
    """For y = log(sum x): dx = g / sum x."""
    return _expand(c, _spread(c, c.op("Div", g, c.op("Exp", c.y))))


def _log_sum_exp(c: Call, g: ir.Value) -> ir.Value:
    """For y = log(sum(exp x)): dx = g exp(x - y)."""
    return c.op("Mul", _spread(c, g), c.op("Exp", c.op("Sub", c.x(0), _spread(c, c.y))))


rule("ReduceSum", lambda c, g: _expand(c, _spread(c, g)), None)
rule("ReduceMean", lambda c, g: _expand(c, c.op("Div", _spread(c, g), _count(c))), None)
rule("ReduceMax ReduceMin", _extreme, None)
rule("ReduceProd", _product, None)
rule("ReduceL1", _l1, None)
rule("ReduceL2", _l2, None)
rule("ReduceSumSquare", _sum_square, None)
rule("ReduceLogSum", _log_sum, None)
rule("ReduceLogSumExp", _log_sum_exp, None)
