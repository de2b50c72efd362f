"""ONNX Runtime's ``com.microsoft.QLinear*``: dequantize, compute in floats, quantize.

The cotangent passes straight through the quantization, as in
:mod:`onnxcam.gradient.rules.quantized`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.quantization import MANY_SCALES, dequantize, quantize
from onnxcam.gradient.registry import expansion
from onnxcam.gradient.rules.quantized_linear import (
    MICROSOFT,
    channels_back,
    channels_first,
    kept,
)


def _dequantized(c: Call, index: int) -> ir.Value:
    """Dequantize the operand at ``index``; its scale and zero point follow it."""
    return dequantize(c, c.x(index), c.x(index + 1), c.operand(index + 2))


def _unary(compute: Callable[[Call, ir.Value], ir.Value]) -> Callable[[Call], list[ir.Value]]:
    """Operands: X, its scale and zero point, those of Y."""
    return lambda c: [quantize(c, compute(c, _dequantized(c, 0)), c.x(3), c.operand(4))]


def _binary(op_type: str) -> Callable[[Call], list[ir.Value]]:
    """Operands: A and B, each with scale and zero point, then those of C."""

    def expand(c: Call) -> list[ir.Value]:
        y = c.op(op_type, _dequantized(c, 0), _dequantized(c, 3))
        return [quantize(c, y, c.x(6), c.operand(7))]

    return expand


def _where(c: Call) -> list[ir.Value]:
    y = c.op("Where", c.x(0), _dequantized(c, 1), _dequantized(c, 4))
    return [quantize(c, y, c.x(7), c.operand(8))]


def _concat(c: Call) -> list[ir.Value]:
    """Operands: scale and zero point of Y, then each part with its own."""
    parts = [_dequantized(c, index) for index in range(2, len(c.node.inputs), 3)]
    y = c.op("Concat", *parts, axis=c.attribute("axis", 0))
    return [quantize(c, y, c.x(0), c.operand(1))]


def _softmax(c: Call, x: ir.Value) -> ir.Value:
    """Before opset 13 (attribute ``opset``), Softmax was over all axes from ``axis`` on."""
    rank = c.rank(c.x(0))
    axis = int(c.attribute("axis", -1)) % rank
    if int(c.attribute("opset", 13)) >= 13 or axis == rank - 1:
        return c.op("Softmax", x, axis=axis)
    flat = c.op("Softmax", c.op("Flatten", x, axis=axis), axis=1)
    return c.op("Reshape", flat, c.builder.shape(c.x(0)))


_POOLING = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _average_pool(c: Call, x: ir.Value) -> ir.Value:
    rank = c.rank(c.x(0))
    y = c.op("AveragePool", channels_first(c, x, rank), **kept(c, *_POOLING))
    return channels_back(c, y, rank)


def _global_average_pool(c: Call, x: ir.Value) -> ir.Value:
    rank = c.rank(c.x(0))
    return channels_back(c, c.op("GlobalAveragePool", channels_first(c, x, rank)), rank)


def _reduce_mean(c: Call, x: ir.Value) -> ir.Value:
    rank = c.rank(c.x(0))
    axes = [int(a) % rank for a in c.attribute("axes", range(rank))]
    return c.builder.mean(x, axes, keepdims=bool(c.attribute("keepdims", 1)))


def _leaky_relu(c: Call, x: ir.Value) -> ir.Value:
    return c.op("LeakyRelu", x, alpha=c.attribute("alpha", 0.01))


_contrib = partial(expansion, refuses=[MANY_SCALES], domain=MICROSOFT)
_contrib("QLinearAdd", _binary("Add"))
_contrib("QLinearMul", _binary("Mul"))
_contrib("QLinearWhere", _where)
_contrib("QLinearConcat", _concat)
_contrib("QLinearSigmoid", _unary(lambda c, x: c.op("Sigmoid", x)))
_contrib("QLinearLeakyRelu", _unary(_leaky_relu))
_contrib("QLinearSoftmax", _unary(_softmax))
_contrib("QLinearAveragePool", _unary(_average_pool))
_contrib("QLinearGlobalAveragePool", _unary(_global_average_pool))
_contrib("QLinearReduceMean", _unary(_reduce_mean))
