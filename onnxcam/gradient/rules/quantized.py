"""Quantization, straight through.

``QuantizeLinear`` rounds, so its derivative is 0 almost everywhere; what is meant is the
derivative of the line that it rounds to: ``q = x / s + z`` inside the representable range, and
flat outside it (Bengio et al. 2013, "straight-through estimator"). The cotangent of a
quantized tensor is with respect to its codes and is itself floating point.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule

_CODES = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}


def _along_axis(c: Call, operand: ir.Value) -> ir.Value:
    """Shape a scale or zero point for broadcasting against the tensor."""
    rank = c.rank(c.x(0))
    sizes = c.dims(operand)
    if not sizes or sizes == [1]:
        return c.op("Reshape", operand, c.builder.ints()) if sizes else operand
    if len(sizes) != 1 or c.attribute("block_size", 0):
        raise c.refuse("blocked quantization has no rule yet")
    axis = int(c.attribute("axis", 1)) % rank
    return c.op("Reshape", operand, c.builder.ints(*[-1 if i == axis else 1 for i in range(rank)]))


def _dequantize(c: Call, g: ir.Value) -> ir.Value:
    """For x = (q - z) s: dq = g s."""
    return c.op("Mul", g, _along_axis(c, c.x(1)))


def _quantize(c: Call, g: ir.Value) -> ir.Value:
    """For q = x / s + z where it fits: dx = g / s there."""
    kind = c.y.dtype
    if kind not in _CODES:
        raise c.refuse(f"codes of type {kind} have no rule yet")
    limits = np.iinfo(kind.numpy())
    scale, zero = _along_axis(c, c.x(1)), c.operand(2)
    codes = c.op("Round", c.op("Div", c.x(0), scale))  # as it is done before saturating
    if zero is not None:
        shift = c.op("Cast", _along_axis(c, zero), to=c.x(0).dtype or ir.DataType.FLOAT)
        codes = c.op("Add", codes, shift)
    low = c.op("GreaterOrEqual", codes, c.like(float(limits.min)))
    high = c.op("LessOrEqual", codes, c.like(float(limits.max)))
    return c.mask(c.op("And", low, high), c.op("Div", g, scale))


rule("DequantizeLinear", _dequantize, None, None)
rule("QuantizeLinear", _quantize, None, None)
