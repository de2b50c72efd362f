"""Convolutions and matrix products of quantized tensors, expanded into those of floats.

Static forms (``QLinearConv``) dequantize, compute and quantize in one operator. Dynamic forms
(``ConvInteger``) give int32 sums of products, whose scale is multiplied in later.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.quantization import (
    MANY_SCALES,
    as_float,
    dequantize,
    minus_zero_point,
    quantize,
)
from onnxcam.gradient.registry import expansion

MICROSOFT = "com.microsoft"
_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def kept(c: Call, *names: str) -> dict[str, Any]:
    """Return the attributes of these names that the node has."""
    return {n: c.attribute(n, None) for n in names if n in c.node.attributes}


def channels_first(c: Call, value: ir.Value, rank: int) -> ir.Value:
    """Move the channels to axis 1 if the node has ``channels_last``."""
    if not c.attribute("channels_last", 0):
        return value
    return c.op("Transpose", value, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_back(c: Call, value: ir.Value, rank: int) -> ir.Value:
    """Undo :func:`channels_first`."""
    if not c.attribute("channels_last", 0):
        return value
    return c.op("Transpose", value, perm=[0, *range(2, rank), 1])


def _qlinear_conv(c: Call) -> list[ir.Value]:
    """Operands: x, w, each with scale and zero point, those of y, bias.

    w may have a scale for each channel; the bias is in units of ``sx sw``.
    """
    x = dequantize(c, c.x(0), c.x(1), c.operand(2))
    w = dequantize(c, c.x(3), c.x(4), c.operand(5), axis=0)
    bias = c.operand(8)
    if bias is not None:
        bias = c.op("Mul", c.op("Cast", bias, to=ir.DataType.FLOAT), c.op("Mul", c.x(1), c.x(4)))
    rank = c.rank(c.x(3))
    y = c.op("Conv", channels_first(c, x, rank), w, bias, **kept(c, *_WINDOW))
    return [quantize(c, channels_back(c, y, rank), c.x(6), c.operand(7))]


def _qlinear_matmul(c: Call) -> list[ir.Value]:
    """Operands: a (perhaps a scale for each row), b (for each column), the scale of y."""
    a = dequantize(c, c.x(0), c.x(1), c.operand(2), axis=-2)
    b = dequantize(c, c.x(3), c.x(4), c.operand(5))
    return [quantize(c, c.op("MatMul", a, b), c.x(6), c.operand(7))]


def _conv_integer(c: Call) -> list[ir.Value]:
    x = minus_zero_point(c, c.x(0), c.operand(2))
    return [c.op("Conv", x, minus_zero_point(c, c.x(1), c.operand(3), axis=0), **kept(c, *_WINDOW))]


def _matmul_integer(c: Call) -> list[ir.Value]:
    a = minus_zero_point(c, c.x(0), c.operand(2), axis=-2)
    return [c.op("MatMul", a, minus_zero_point(c, c.x(1), c.operand(3)))]


for _domain in ("", MICROSOFT):
    expansion("QLinearConv", _qlinear_conv, refuses=[MANY_SCALES], domain=_domain)
expansion("QLinearMatMul", _qlinear_matmul, refuses=[MANY_SCALES])
expansion("ConvInteger", _conv_integer)
expansion("MatMulInteger", _matmul_integer)


def _with_bias(c: Call, y: ir.Value, index: int) -> list[ir.Value]:
    bias = c.operand(index)
    return [y if bias is None else c.op("Add", y, bias)]


def _matmul_integer_to_float(c: Call) -> list[ir.Value]:
    a = dequantize(c, c.x(0), c.x(2), c.operand(4), axis=-2)
    b = dequantize(c, c.x(1), c.x(3), c.operand(5))
    return _with_bias(c, c.op("MatMul", a, b), 6)


def _dynamic_quantize_matmul(c: Call) -> list[ir.Value]:
    """Quantization of the first operand inside the node is passed straight through."""
    b = dequantize(c, c.x(1), c.x(2), c.operand(3))
    return _with_bias(c, c.op("MatMul", c.x(0), b), 4)


def _qgemm(c: Call) -> list[ir.Value]:
    """Return alpha (A' B' + C sa sb), quantized if y has a scale."""
    a = dequantize(c, c.x(0), c.x(1), c.operand(2))
    by_row = bool(c.attribute("transB", 0))
    b = dequantize(c, c.x(3), c.x(4), c.operand(5), axis=0 if by_row else 1)
    bias, alpha = c.operand(6), float(c.attribute("alpha", 1.0))
    if bias is not None:
        bias = c.op("Mul", c.op("Cast", bias, to=ir.DataType.FLOAT), c.op("Mul", c.x(1), c.x(4)))
    settings = kept(c, "transA", "transB", "alpha")
    y = c.op("Gemm", a, b, bias, beta=alpha, **settings)
    return [y if c.operand(7) is None else quantize(c, y, c.x(7), c.operand(8))]


expansion("MatMulIntegerToFloat", _matmul_integer_to_float, domain=MICROSOFT)
expansion("DynamicQuantizeMatMul", _dynamic_quantize_matmul, domain=MICROSOFT)
expansion("QGemm", _qgemm, refuses=[MANY_SCALES], domain=MICROSOFT)


def _unpacked(c: Call, packed: ir.Value, bits: int, *shape: int) -> ir.Value:
    """Unpack bytes into numbers of ``bits`` bits, the lowest first, as floats of ``shape``."""
    byte = ir.DataType.UINT8
    mask = c.builder.constant(2**bits, byte) if bits < 8 else None
    parts = []
    for shift in range(0, 8, bits):
        part = packed
        if shift:
            steps = c.builder.constant(shift, byte)
            part = c.op("BitShift", packed, steps, direction="RIGHT")
        if mask is not None:
            part = c.op("Mod", part, mask)
        parts.append(c.op("Unsqueeze", part, c.builder.ints(-1)))
    joined = c.op("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
    return c.op("Reshape", c.op("Cast", joined, to=c.kind), c.builder.ints(*shape))


_PACKED = "its weights are packed in a way that is not supported"


def _matmul_nbits(c: Call) -> list[ir.Value]:
    """Return a W^T + bias; W ``[N, K]`` is stored in blocks along K, each with scale and zero."""
    bits, block = int(c.attribute("bits", 4)), int(c.attribute("block_size", 0))
    rows, depth = int(c.attribute("N", 0)), int(c.attribute("K", 0))
    if bits not in (2, 4, 8) or c.operand(4) is not None or c.attribute("weight_prepacked", 0):
        raise c.refuse(_PACKED)
    blocks = -(-depth // block)
    weight = _unpacked(c, c.x(1), bits, rows, blocks, block)
    zero = c.operand(3)
    if zero is None:
        shift = c.like(float(2 ** (bits - 1)))
    elif zero.dtype == ir.DataType.UINT8:
        packed = c.op("Reshape", zero, c.builder.ints(rows, -1))
        unpacked = _unpacked(c, packed, bits, rows, -1)
        first = c.op(
            "Slice", unpacked, c.builder.ints(0), c.builder.ints(blocks), c.builder.ints(1)
        )
        shift = c.op("Reshape", first, c.builder.ints(rows, blocks, 1))
    else:
        shift = c.op("Reshape", as_float(c, zero, c.kind), c.builder.ints(rows, blocks, 1))
    scale = c.op("Reshape", c.x(2), c.builder.ints(rows, blocks, 1))
    weight = c.op("Mul", c.op("Sub", weight, shift), scale)
    weight = c.op("Reshape", weight, c.builder.ints(rows, blocks * block))
    if blocks * block > depth:
        ints = c.builder.ints
        weight = c.op("Slice", weight, ints(0), ints(depth), ints(1))
    return _with_bias(c, c.op("MatMul", c.x(0), c.op("Transpose", weight, perm=[1, 0])), 5)


expansion("MatMulNBits", _matmul_nbits, refuses=[_PACKED], domain=MICROSOFT)
