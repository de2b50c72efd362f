"""Find the numbers that a network adds: biases, shifts of normalizations, constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.graph.values import constant, dims


def bias_of(node: ir.Node) -> np.ndarray | None:
    """Return what a node adds to what is linear in its data, shaped against its output.

    ``None`` where it adds nothing, or nothing that is known.
    """
    if node.domain:
        return None
    rank = len(dims(node.outputs[0]) or [])
    if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2:
        bias = _number(node.inputs[2])
        if bias is None:
            return None
        if node.op_type == "Gemm":
            return np.asarray(bias * node.attributes.get_float("beta", 1.0))
        return bias.reshape(-1, *[1] * (rank - 2))
    if node.op_type == "BatchNormalization":
        found = [constant(v) for v in node.inputs[1:5]]
        if any(v is None for v in found):
            return None
        scale, bias, mean, variance = (np.asarray(v, np.float64) for v in found)
        deviation = np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return np.asarray(bias - mean * scale / deviation).reshape(-1, *[1] * (rank - 2))
    if node.op_type not in ("Add", "Sub", "Sum"):
        return None
    stored = [_number(v) for v in node.inputs]
    known = [i for i, v in enumerate(stored) if v is not None]
    if len(known) != 1 or len(stored) != 2:
        return None
    number = stored[known[0]]
    assert number is not None
    return np.negative(number) if node.op_type == "Sub" and known == [1] else number


def _number(value: ir.Value | None) -> np.ndarray | None:
    """Return a stored constant, of a quantized one what it stands for."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return constant(value)
    stored, scale, zero = (constant(v) for v in (*node.inputs, None)[:3])
    if stored is None or scale is None or (scale.size > 1 and stored.ndim != 1):
        return None
    return np.asarray((stored - np.float64(0 if zero is None else zero)) * np.float64(scale))


def channels_of(bias: np.ndarray, output: ir.Value) -> int | None:
    """Return which axis of a node's output a bias differs along, 1 where along none."""
    rank = len(dims(output) or [])
    full = [1] * (rank - bias.ndim) + list(bias.shape)
    axes = [i for i, n in enumerate(full) if n != 1]
    if len(axes) > 1 or full[:1] not in ([], [1]):
        return None
    return axes[0] if axes else 1
