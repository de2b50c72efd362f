"""Quantize and dequantize.

A quantized tensor ``q`` stands for ``x = (q - z) s``, with a scale ``s`` and a zero point ``z``.
Its elements are integers or narrow floats, but its cotangent is taken as if ``q`` were
continuous, and is float32.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.graph.values import constant

MISFIT = "the shapes of tensor and scale do not fit"  # refused by for_broadcasting
MANY_SCALES = "its output has more than one scale"  # refused by quantize

_SMALL = 4096  # elements


def as_float(c: Call, value: ir.Value, kind: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """Return a value as floats of one type; small constants are converted at once."""
    if value.dtype == kind:
        return value
    array = constant(value)
    if array is not None and array.size <= _SMALL:
        return c.builder.constant(array, kind)
    floats = c.op("Cast", value, to=kind)
    floats.shape, floats.dtype = value.shape, kind
    return floats


def for_broadcasting(c: Call, operand: ir.Value, like: ir.Value) -> ir.Value:
    """Shape a scale or zero point for broadcasting against the quantized tensor.

    It has one element, or one for each index of the node's axis, or one for every
    ``block_size`` indices.
    """
    sizes = c.dims(operand)
    if all(n == 1 for n in sizes):
        return c.op("Reshape", operand, c.builder.ints()) if sizes else operand
    rank = c.rank(like)
    axis = int(c.attribute("axis", 1)) % max(rank, 1)
    if len(sizes) == 1 and rank >= 1:
        return column(c, operand, axis, rank)
    block = int(c.attribute("block_size", 0))
    if not block or len(sizes) != rank:
        raise c.refuse(MISFIT)
    length = c.op("Gather", c.builder.shape(like), c.builder.constant(axis), axis=0)
    ints = c.builder.constant
    blocks = c.op("Div", c.op("Range", ints(0), length, ints(1)), ints(block))
    return c.op("Gather", operand, blocks, axis=axis)


def column(c: Call, operand: ir.Value, axis: int, rank: int) -> ir.Value:
    """Shape a vector for broadcasting along one axis."""
    return c.op("Reshape", operand, c.builder.ints(*(-1 if i == axis else 1 for i in range(rank))))


def dequantize(
    c: Call, quantized: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int = -1
) -> ir.Value:
    """Append ``(quantized - zero) scale``; the scale has one element, or one an index of ``axis``.

    A stored tensor is dequantized by arithmetic, which the runtime folds once, when the session is
    made; it would keep a ``DequantizeLinear``.
    """
    kind = scale.dtype or ir.DataType.FLOAT
    per_tensor = all(n == 1 for n in c.dims(scale))
    if per_tensor and quantized.const_value is None and quantized.dtype != ir.DataType.INT32:
        return c.op("DequantizeLinear", quantized, as_scalar(c, scale), as_scalar(c, zero))
    return c.op(
        "Mul", minus_zero_point(c, quantized, zero, axis, kind), _fitted(c, scale, quantized, axis)
    )


def minus_zero_point(
    c: Call,
    quantized: ir.Value,
    zero: ir.Value | None,
    axis: int = -1,
    kind: ir.DataType = ir.DataType.FLOAT,
) -> ir.Value:
    """Append ``quantized - zero`` in floats."""
    floats = c.op("Cast", quantized, to=kind)
    stored = constant(zero)
    if zero is None or (stored is not None and not stored.any()):
        return floats
    return c.op("Sub", floats, _fitted(c, as_float(c, zero, kind), quantized, axis))


def _fitted(c: Call, operand: ir.Value, quantized: ir.Value, axis: int) -> ir.Value:
    sizes, rank = c.dims(operand), c.rank(quantized)
    if all(n == 1 for n in sizes):
        return as_scalar(c, operand) or operand
    return column(c, operand, axis % rank, rank) if len(sizes) == 1 else operand


def as_scalar(c: Call, operand: ir.Value | None) -> ir.Value | None:
    """Return a scale or zero point of one element as a scalar."""
    if operand is None or not c.dims(operand):
        return operand
    return c.op("Reshape", operand, c.builder.ints())


def quantize(c: Call, value: ir.Value, scale: ir.Value, zero: ir.Value | None) -> ir.Value:
    """Append ``round(value / scale) + zero``, saturated, in the node's output type."""
    if any(n != 1 for n in c.dims(scale)):
        raise c.refuse(MANY_SCALES)
    if c.node in c.walk.unclipped:
        return c.op("Div", value, as_scalar(c, scale))
    kind = c.y.dtype or ir.DataType.UINT8
    zero = c.builder.constant(0, kind) if zero is None else as_scalar(c, zero)
    return c.op("QuantizeLinear", value, as_scalar(c, scale), zero)


def convert(
    c: Call, value: ir.Value, before: ir.DataType | None, to: ir.DataType | None
) -> ir.Value:
    """Convert a cotangent between types; ``None`` is float32."""
    kind = to or ir.DataType.FLOAT
    return value if (before or ir.DataType.FLOAT) == kind else c.op("Cast", value, to=kind)


def divided(c: Call, g: ir.Value, scale: ir.Value) -> ir.Value:
    """Return ``g / scale``, the cotangent of a quantizing node's input, in the input's type."""
    x = c.x(0)
    kind = ir.DataType.FLOAT if x.dtype == ir.DataType.INT32 else x.dtype
    return convert(c, c.op("Div", g, scale), ir.DataType.FLOAT, kind)
