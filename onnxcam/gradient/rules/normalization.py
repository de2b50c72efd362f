"""Normalisation, as networks are exported for inference."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule


def _per_channel(c: Call, value: ir.Value) -> ir.Value:
    """Shape ``[K]`` for broadcasting against ``[N, K, *S]``."""
    space = c.rank(c.x(0)) - 2
    return c.op("Reshape", value, c.builder.ints(-1, *[1] * space)) if space > 0 else value


def _batch_norm(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = g scale / sqrt(var + eps): stored constants, which the runtime folds."""
    if c.attribute("training_mode", 0):
        raise c.refuse("it is in training mode")
    epsilon = c.like(c.attribute("epsilon", 1e-5))
    factor = c.op("Div", c.x(1), c.op("Sqrt", c.op("Add", c.x(4), epsilon)))
    return c.op("Mul", g, _per_channel(c, factor))


def _statistic(c: Call, g: ir.Value) -> ir.Value:
    raise c.refuse("its statistics are computed from the layer")


rule("BatchNormalization", _batch_norm, *[_statistic] * 4)


def _whitened(c: Call, x: ir.Value, g: ir.Value, axes: list[int]) -> ir.Value:
    """Return dx of h = (x - mean) / sqrt(var + eps), given dh.

    dx = (dh - mean(dh) - h mean(dh h)) / sqrt(var + eps), means over ``axes`` (from the end).
    """
    mean, op = c.builder.mean, c.op
    centred = op("Sub", x, mean(x, axes, keepdims=True))
    variance = mean(op("Mul", centred, centred), axes, keepdims=True)
    root = op("Sqrt", op("Add", variance, c.like(c.attribute("epsilon", 1e-5))))
    h = op("Div", centred, root)
    slope = op("Mul", h, mean(op("Mul", g, h), axes, keepdims=True))
    return op("Div", op("Sub", op("Sub", g, mean(g, axes, keepdims=True)), slope), root)


def _layer_norm(c: Call, g: ir.Value) -> ir.Value:
    axis = c.axis(c.x(0), -1)
    return _whitened(c, c.x(0), c.op("Mul", g, c.x(1)), list(range(axis, 0)))


def _instance_norm(c: Call, g: ir.Value) -> ir.Value:
    scaled = c.op("Mul", g, _per_channel(c, c.x(1)))
    return _whitened(c, c.x(0), scaled, list(range(2 - c.rank(c.x(0)), 0)))


rule("LayerNormalization", _layer_norm, _statistic, _statistic)
rule("InstanceNormalization", _instance_norm, _statistic, _statistic)


def _lrn(c: Call, g: ir.Value) -> ir.Value:
    """Return dx of y = x s^-b with s = bias + a/n sum(x^2) over n neighbouring channels.

    dx = g s^-b - 2 a b / n x sum(g x s^(-b-1)), the sum over the channels whose window
    holds this one, i.e. the window turned around.
    """
    size = int(c.attribute("size", 1))
    alpha, beta = c.attribute("alpha", 1e-4), c.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    x, op = c.x(0), c.op
    squares = _over_channels(c, op("Mul", x, x), size, before, after)
    s = op("Add", op("Mul", squares, c.like(alpha / size)), c.like(c.attribute("bias", 1.0)))
    direct = op("Mul", g, op("Pow", s, c.like(-beta)))
    through = op("Div", op("Mul", direct, x), s)
    back = _over_channels(c, through, size, after, before)
    indirect = op("Mul", op("Mul", x, c.like(2.0 * alpha * beta / size)), back)
    return op("Sub", direct, indirect)


def _over_channels(c: Call, value: ir.Value, size: int, before: int, after: int) -> ir.Value:
    """Sum over windows of channels of ``[..., N, K, *S]``, by a convolution with ones."""
    x = c.x(0)
    space = c.rank(x) - 2
    channels = c.static(x, 1)
    if channels is None:
        raise c.refuse("its number of channels is only known at run time")
    flat = c.op("Reshape", value, _flat_shape(c, channels, space))
    ones = c.builder.constant(np.ones([1, 1, size, 1]), x.dtype)
    summed = c.op("Conv", flat, ones, pads=[before, 0, after, 0], kernel_shape=[size, 1])
    return c.unfold(summed, x)


def _flat_shape(c: Call, channels: int, space: int) -> ir.Value:
    """Shape ``[-1, 1, K, places]``."""
    sizes = c.dims(c.x(0))[2:]
    known = [d for d in sizes if isinstance(d, int)]
    if len(known) == space:
        return c.builder.ints(-1, 1, channels, int(np.prod(known, dtype=np.int64)))
    count = c.op("ReduceProd", c.builder.space(c.x(0)), keepdims=1)
    return c.op("Concat", c.builder.ints(-1, 1, channels), count, axis=0)


rule("LRN", _lrn)
