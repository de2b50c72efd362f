"""Normalization by magnitude: a vector's length, or the responses of neighboring channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import rule


def _lp(c: Call, g: ir.Value) -> ir.Value:
    """For y = x / |x|: dx = (g - d|x| sum(g y)) / |x|; 0 where the vector is 0.

    d|x| is sign(x) for the sum of absolute values (p = 1), y for the Euclidean length (p = 2).
    """
    x, axis, op = c.x(0), c.axis(c.x(0), -1), c.op
    if c.attribute("p", 2) == 1:
        length, slope = c.builder.sum(op("Abs", x), [axis], keepdims=True), op("Sign", x)
    else:
        length, slope = op("Sqrt", c.builder.sum(op("Mul", x, x), [axis], keepdims=True)), c.y
    along = c.builder.sum(op("Mul", g, c.y), [axis], keepdims=True)
    dx = op("Div", op("Sub", g, op("Mul", slope, along)), length)
    return op("Where", op("Equal", length, c.like(0.0)), c.like(0.0), dx)


rule("LpNormalization", _lp)


def _lrn(c: Call, g: ir.Value) -> ir.Value:
    """Return dx of y = x s^-b with s = bias + a/n sum(x^2) over n neighboring channels.

    dx = g s^-b - 2 a b / n x sum(g x s^(-b-1)), the sum over the channels whose windows
    hold this one, which is the flipped window.
    """
    size = int(c.attribute("size", 1))
    alpha, beta = c.attribute("alpha", 1e-4), c.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    x, op = c.x(0), c.op
    squares = op("Mul", x, x)
    squares = op("Reshape", _over_channels(c, squares, size, before, after), c.builder.shape(x))
    s = op("Add", op("Mul", squares, c.like(alpha / size)), c.like(c.attribute("bias", 1.0)))
    direct = op("Mul", g, op("Pow", s, c.like(-beta)))
    through = op("Div", op("Mul", direct, x), s)
    back = c.split_t(_over_channels(c, through, size, after, before), x)
    indirect = op("Mul", op("Mul", x, c.like(2.0 * alpha * beta / size)), back)
    return op("Sub", direct, indirect)


def _over_channels(c: Call, value: ir.Value, size: int, before: int, after: int) -> ir.Value:
    """Sum ``[..., N, K, *S]`` over windows of channels; the result is ``[-1, 1, K, positions]``."""
    flat = c.op("Reshape", value, _flat_shape(c))
    ones = c.builder.constant(np.ones([1, 1, size, 1]), c.kind)
    return c.op("Conv", flat, ones, pads=[before, 0, after, 0], kernel_shape=[size, 1])


def _flat_shape(c: Call) -> ir.Value:
    """Return the shape ``[-1, 1, K, positions]``."""
    sizes = [d for d in c.dims(c.x(0))[1:] if isinstance(d, int)]
    if len(sizes) == c.rank(c.x(0)) - 1:
        return c.builder.ints(-1, 1, sizes[0], int(np.prod(sizes[1:], dtype=np.int64)))
    channels = c.op("Slice", c.op("Shape", c.x(0)), c.builder.ints(1), c.builder.ints(2))
    positions = c.op("ReduceProd", c.builder.space(c.x(0)), keepdims=1)
    return c.op("Concat", c.builder.ints(-1, 1), channels, positions, axis=0)


rule("LRN", _lrn)
