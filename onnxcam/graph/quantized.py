"""Quantized tensors: their types and ranges, and which values of a graph are quantized.

A quantized tensor ``q`` stands for the numbers ``x = (q - z) s``, with a scale ``s`` and a zero
point ``z``.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
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
# The least and largest value of each quantized type that the installed onnx_ir knows.
LIMITS = {
    ir.DataType[name]: limits for name, limits in _RANGES.items() if name in ir.DataType.__members__
}


def holds_quantized(value: ir.Value) -> bool:
    """Whether a value carries a gradient although it is not floating point.

    That is so for quantized tensors and for the int32 sums of their products.
    """
    if value.dtype != ir.DataType.INT32:
        return value.dtype in LIMITS and not _is_zero_point(value)
    stack, seen = [value], {value}
    while stack:
        node = stack.pop().producer()
        if node is None:
            continue
        if has(node, Trait.INTEGER_SUM):
            return True
        if has(node, Trait.MOVES | Trait.ADDS):
            further = [v for v in node.inputs if v is not None and v not in seen]
            stack += further
            seen.update(further)
    return False


def _is_zero_point(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DynamicQuantizeLinear" and value.index() != 0


def absorbs_relu(node: ir.Node) -> bool:
    """Whether a QuantizeLinear stands for a ReLU, which a quantizer dropped before it.

    Then its zero point is the least quantized value. A sum of two such tensors had no ReLU.
    """
    x, y = node.inputs[0], node.outputs[0]
    made = None if x is None else x.producer()
    if made is None or not has(made, Trait.AFFINE) or not begins_at_zero(_zero_point(node), y):
        return False
    sources = [v.producer() for v in made.inputs if v is not None]
    return made.op_type != "Add" or not all(
        s is not None
        and s.op_type == "DequantizeLinear"
        and s.inputs[0] is not None
        and begins_at_zero(_zero_point(s), s.inputs[0])
        for s in sources
    )


def _zero_point(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def begins_at_zero(zero: ir.Value | None, quantized: ir.Value) -> bool:
    """Whether the least quantized value stands for 0, and none for less."""
    low = LIMITS[quantized.dtype or ir.DataType.UINT8][0]
    if zero is None:
        return low == 0
    stored = constant(zero)
    return stored is not None and bool((stored == low).all())
