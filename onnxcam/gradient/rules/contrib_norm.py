"""Normalizations that ONNX Runtime's optimizer fuses with the additions before them."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import expansion
from onnxcam.gradient.rules.quantized_linear import MICROSOFT


def _scaled(c: Call, x: ir.Value, axes: list[int], epsilon: float) -> ir.Value:
    """Return x / sqrt(mean(x^2) + epsilon), the mean over ``axes``."""
    square = c.builder.mean(c.op("Mul", x, x), axes, keepdims=True)
    return c.op("Div", x, c.op("Sqrt", c.op("Add", square, c.like(epsilon))))


def _whitened(c: Call, x: ir.Value, axes: list[int], epsilon: float) -> ir.Value:
    """Return (x - mean) / sqrt(variance + epsilon) over ``axes``."""
    return _scaled(c, c.op("Sub", x, c.builder.mean(x, axes, keepdims=True)), axes, epsilon)


def _simplified(c: Call) -> list[ir.Value | None]:
    rank = c.rank(c.x(0))
    axis = int(c.attribute("axis", -1)) % rank
    h = _scaled(c, c.x(0), list(range(axis, rank)), c.attribute("epsilon", 1e-5))
    return [c.op("Mul", h, c.x(1)), None]


def _sum(c: Call, *indices: int) -> ir.Value:
    """Add the first two operands and those of ``indices`` that are given."""
    total = c.op("Add", c.x(0), c.x(1))
    for index in indices:
        operand = c.operand(index)
        total = total if operand is None else c.op("Add", total, operand)
    return total


def _skip(c: Call) -> list[ir.Value | None]:
    """Normalize the sum input + skip + bias; the sum is the fourth output."""
    total, beta = _sum(c, 4), c.operand(3)
    axes = [c.rank(c.x(0)) - 1]
    y = c.op("Mul", _whitened(c, total, axes, c.attribute("epsilon", 1e-12)), c.x(2))
    return [y if beta is None else c.op("Add", y, beta), None, None, total]


def _skip_simplified(c: Call) -> list[ir.Value | None]:
    total, axes = _sum(c, 3), [c.rank(c.x(0)) - 1]
    h = _scaled(c, total, axes, c.attribute("epsilon", 1e-12))
    return [c.op("Mul", h, c.x(2)), None, None, total]


def _embed(c: Call) -> list[ir.Value | None]:
    """Normalize the sum of three embeddings; the sum is the third output.

    Operands: ids of words, ``[B, S]``; ids of segments, optional; tables of words, positions and
    segments; gamma; beta; at index 8 the positions, by default 0, 1, ...
    """
    b, words, segments, positions = c.builder, c.x(0), c.operand(1), c.operand(8)
    if positions is None:
        length = c.op("Gather", b.shape(words), b.constant(1), axis=0)
        positions = c.op("Range", b.constant(0), length, b.constant(1))
    total = c.op("Add", c.op("Gather", c.x(2), words), c.op("Gather", c.x(3), positions))
    if segments is not None:
        total = c.op("Add", total, c.op("Gather", c.x(4), segments))
    h = _whitened(c, total, [2], c.attribute("epsilon", 1e-12))
    return [c.op("Add", c.op("Mul", h, c.x(5)), c.x(6)), None, total]


expansion("SimplifiedLayerNormalization", _simplified)
expansion("EmbedLayerNormalization", _embed, domain=MICROSOFT)
expansion("SkipLayerNormalization", _skip, domain=MICROSOFT)
expansion("SkipSimplifiedLayerNormalization", _skip_simplified, domain=MICROSOFT)


def _groups(c: Call, x: ir.Value) -> ir.Value:
    """Normalize groups of channels of ``[N, H, W, C]`` or ``[N, C, H, W]``; then perhaps SiLU."""
    last, groups = bool(c.attribute("channels_last", 1)), int(c.attribute("groups", 1))
    first = c.op("Transpose", x, perm=[0, 3, 1, 2]) if last else x
    grouped = c.op("Reshape", first, c.builder.ints(0, groups, -1))
    h = _whitened(c, grouped, [2], c.attribute("epsilon", 1e-5))
    h = c.op("Reshape", h, c.op("Shape", first))
    column = c.builder.ints(-1, 1, 1)
    h = c.op("Mul", h, c.op("Reshape", c.x(1), column))
    h = c.op("Add", h, c.op("Reshape", c.x(2), column))
    if c.attribute("activation", 0):
        h = c.op("Mul", h, c.op("Sigmoid", h))
    return c.op("Transpose", h, perm=[0, 2, 3, 1]) if last else h


_NOT_LAST = "its channels are not last"


def _skip_groups(c: Call) -> list[ir.Value]:
    """Normalize the sum x + skip + bias; the sum is the second output. Channels are last."""
    if not c.attribute("channels_last", 1):
        raise c.refuse(_NOT_LAST)
    skip, bias = c.x(3), c.operand(4)
    if c.rank(skip) == 2:  # [N, C]
        skip = c.op("Unsqueeze", skip, c.builder.ints(1, 2))
    total = c.op("Add", c.x(0), skip)
    total = total if bias is None else c.op("Add", total, bias)
    return [_groups(c, total), total]


expansion("GroupNorm", lambda c: [_groups(c, c.x(0))], domain=MICROSOFT)
expansion("SkipGroupNorm", _skip_groups, refuses=[_NOT_LAST], domain=MICROSOFT)
