"""Codes: what quantized tensors are stored as.

A tensor of codes ``q`` stands for ``x = (q - z) s``, with a scale ``s`` and a zero point ``z``.
Codes are integers or narrow floats, but their cotangent is with respect to the line between
them, and is itself float32.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.registry import Call
from onnxcam.graph.values import constant

_RANGES: dict[str, tuple[float, float]] = {
    "INT2": (-2, 1),
    "UINT2": (0, 3),
    "INT4": (-8, 7),
    "UINT4": (0, 15),
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT16": (-32768, 32767),
    "UINT16": (0, 65535),
    "FLOAT4E2M1": (-6, 6),
    "FLOAT8E4M3FN": (-448, 448),
    "FLOAT8E4M3FNUZ": (-240, 240),
    "FLOAT8E5M2": (-57344, 57344),
    "FLOAT8E5M2FNUZ": (-57344, 57344),
}
# The smallest and the largest code of each type, as far as the installed onnx_ir knows it.
LIMITS = {
    ir.DataType[name]: limits for name, limits in _RANGES.items() if name in ir.DataType.__members__
}

_SMALL = 4096  # elements
_SUMMING = {"ConvInteger", "MatMulInteger"}
_PASSING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"}
_PASSING |= {"Add", "Sub", "Sum", "Concat", "Split", "Gather", "Expand"}


def holds_codes(value: ir.Value) -> bool:
    """Whether a value that is not floating point carries a gradient all the same.

    Codes do, and so do the int32 sums of their products.
    """
    if value.dtype != ir.DataType.INT32:
        return value.dtype in LIMITS and not _is_zero_point(value)
    stack, seen = [value], {value}
    while stack:
        node = stack.pop().producer()
        if node is None:
            continue
        if node.op_type in _SUMMING:
            return True
        if node.op_type in _PASSING:
            further = [v for v in node.inputs if v is not None and v not in seen]
            stack += further
            seen.update(further)
    return False


def _is_zero_point(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DynamicQuantizeLinear" and value.index() != 0


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


def along(c: Call, operand: ir.Value, like: ir.Value) -> ir.Value:
    """Shape a scale or zero point for broadcasting against the quantized tensor.

    It is a scalar, or one number for each place of the node's axis, or, in blocks, one for
    every ``block_size`` places of it.
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
        raise c.refuse("the shapes of tensor and scale do not fit")
    length = c.op("Gather", c.builder.shape(like), c.builder.constant(axis), axis=0)
    ints = c.builder.constant
    places = c.op("Div", c.op("Range", ints(0), length, ints(1)), ints(block))
    return c.op("Gather", operand, places, axis=axis)


def column(c: Call, operand: ir.Value, axis: int, rank: int) -> ir.Value:
    """Shape a vector for broadcasting along one axis."""
    return c.op("Reshape", operand, c.builder.ints(*(-1 if i == axis else 1 for i in range(rank))))


def decode(
    c: Call, codes: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int = -1
) -> ir.Value:
    """Append ``(codes - zero) scale``, with one scale a tensor or one for each place of an axis.

    Stored codes are decoded by arithmetic, which the runtime folds once, when the session is
    made; it would keep a ``DequantizeLinear``.
    """
    kind = scale.dtype or ir.DataType.FLOAT
    single = all(n == 1 for n in c.dims(scale))
    if single and codes.const_value is None and codes.dtype != ir.DataType.INT32:
        return c.op("DequantizeLinear", codes, flat(c, scale), flat(c, zero))
    return c.op("Mul", shifted(c, codes, zero, axis, kind), _fitted(c, scale, codes, axis))


def shifted(
    c: Call,
    codes: ir.Value,
    zero: ir.Value | None,
    axis: int = -1,
    kind: ir.DataType = ir.DataType.FLOAT,
) -> ir.Value:
    """Append ``codes - zero`` in floats."""
    floats = c.op("Cast", codes, to=kind)
    stored = constant(zero)
    if zero is None or (stored is not None and not stored.any()):
        return floats
    return c.op("Sub", floats, _fitted(c, as_float(c, zero, kind), codes, axis))


def _fitted(c: Call, operand: ir.Value, codes: ir.Value, axis: int) -> ir.Value:
    sizes, rank = c.dims(operand), c.rank(codes)
    if all(n == 1 for n in sizes):
        return flat(c, operand) or operand
    return column(c, operand, axis % rank, rank) if len(sizes) == 1 else operand


def flat(c: Call, operand: ir.Value | None) -> ir.Value | None:
    """Return a scale or zero point of one element as a scalar."""
    if operand is None or not c.dims(operand):
        return operand
    return c.op("Reshape", operand, c.builder.ints())


def encode(c: Call, value: ir.Value, scale: ir.Value, zero: ir.Value | None) -> ir.Value:
    """Append ``round(value / scale) + zero``, saturated, as codes of the node's output type."""
    if any(n != 1 for n in c.dims(scale)):
        raise c.refuse("its output has more than one scale")
    if c.node in c.builder.unclipped:
        return c.op("Div", value, flat(c, scale))
    kind = c.y.dtype or ir.DataType.UINT8
    zero = c.builder.constant(0, kind) if zero is None else flat(c, zero)
    return c.op("QuantizeLinear", value, flat(c, scale), zero)
