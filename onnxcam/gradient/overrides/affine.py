"""A linear operator, with the scales and shifts that an exporter wrote after it, as one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.graph.builder import PREFIX, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims

_HEADS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Affine:
    """``z = scale (W x + b) + shift``, scale and shift one number, or one a channel.

    Attributes:
        node: the operator that multiplies with the weights.
        index: which of its operands is ``x``.
        scale: what its output is multiplied by, ``[]`` or ``[K]``.
        shift: what is added then, ``[]`` or ``[K]``.
    """

    node: ir.Node
    index: int
    scale: np.ndarray
    shift: np.ndarray

    @property
    def x(self) -> ir.Value:
        """What the weights are multiplied with."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    @property
    def _axis(self) -> int:
        """Which axis of the weights is the channels of the output."""
        if self.node.op_type == "Conv":
            return 0
        if self.node.op_type == "ConvTranspose":
            return 1
        by_row = self.node.op_type == "Gemm" and self.node.attributes.get_int("transB", False)
        return 0 if by_row else -1

    def weights(self, call: Call) -> ir.Value:
        """Return the weights times the scale."""
        weight = call.x(1 - self.index)
        if self.scale.ndim == 0 and self.scale == 1:
            return weight
        factor = self.scale
        if factor.ndim:
            rank = call.rank(weight)
            at = self._axis % rank
            factor = factor.reshape([-1 if i == at else 1 for i in range(rank)])
        return shaped(call.op("Mul", weight, call.builder.constant(factor, call.kind)), weight)

    def bias(self, call: Call) -> ir.Value | None:
        """Return ``scale b + shift``, ``None`` where it is 0."""
        own = None if call.operand(2) is None else call.x(2)
        beta = float(call.attribute("beta", 1.0)) if self.node.op_type == "Gemm" else 1.0
        scale = self.scale * beta
        if own is not None and (scale.ndim or scale != 1):
            own = call.op("Mul", own, call.builder.constant(scale, call.kind))
        if not self.shift.any():
            return own
        shift = call.builder.constant(self.shift, call.kind)
        return shift if own is None else call.op("Add", own, shift)

    def applied(self, call: Call, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Return what the operator makes of another input with other weights."""
        operands = list(self.node.inputs[:2])
        operands[self.index], operands[1 - self.index] = x, weight
        result = call.builder.copy(self.node, operands)
        result.shape, result.type = call.y.shape, call.y.type
        if bias is None:
            return result
        space = call.rank(call.y) - 2 if has(self.node, Trait.CONVOLUTION) else 0
        column = call.op("Unsqueeze", bias, call.builder.ints(*range(1, space + 1)))
        single = bias.shape is not None and len(bias.shape) == 0
        return call.op("Add", result, column if space > 0 and not single else bias)


def affine_of(node: ir.Node, ends: Collection[ir.Value] = ()) -> Affine | None:
    """Return the linear operator that a node is the end of, with what lies between.

    Args:
        node: the linear operator itself, or a scale, shift or batch normalization after it.
        ends: tensors that are wanted themselves, so that nothing reaches over them.
    """
    scale, shift = np.ones(()), np.zeros(())
    while not (node.op_type in _HEADS and not node.domain):
        step = _step(node)
        if step is None:
            return None
        value, factor, added = step
        producer = value.producer()
        if producer is None or value in ends or len(readers_of(value)) != 1:
            return None
        shift, scale, node = np.asarray(shift + scale * added), np.asarray(scale * factor), producer
    weight = 1 if node.op_type != "MatMul" or constant(node.inputs[0]) is None else 0
    grouped = node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1
    changed = bool(np.ndim(scale) or np.ndim(shift))
    if not _stored(node.inputs[weight]) or (grouped and changed):
        return None
    if node.op_type == "Gemm" and len(node.inputs) > 2 and not _stored(node.inputs[2]):
        return None
    return Affine(node, 1 - weight, np.asarray(scale), np.asarray(shift))


def _stored(value: ir.Value | None) -> bool:
    """Whether a value is a constant, perhaps a quantized one."""
    if value is None or constant(value) is not None:
        return True
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and _stored(node.inputs[0])


def _step(node: ir.Node) -> tuple[ir.Value, np.ndarray, np.ndarray] | None:
    """Return what a node scales and shifts, by which factors and numbers for each channel."""
    if node.domain or not node.inputs or node.inputs[0] is None:
        return None
    one, none = np.ones(()), np.zeros(())
    if node.op_type == "BatchNormalization":
        if node.attributes.get_int("training_mode", 0):
            return None
        found = [constant(v) for v in node.inputs[1:5]]
        if any(v is None for v in found):
            return None
        scale, bias, mean, variance = (np.asarray(v, np.float64) for v in found)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return node.inputs[0], factor, bias - mean * factor
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    stored = [constant(v) for v in node.inputs]
    index = 0 if stored[0] is None else 1
    x, number = node.inputs[index], stored[1 - index]
    if x is None or number is None or (index and node.op_type in ("Sub", "Div")):
        return None
    by_channel = _by_channel(np.asarray(number, np.float64), x)
    if by_channel is None:
        return None
    steps: dict[str, tuple[np.ndarray, np.ndarray]]
    steps = {
        "Add": (one, by_channel),
        "Sub": (one, np.negative(by_channel)),
        "Mul": (by_channel, none),
    }
    if node.op_type == "Div":
        return None if (by_channel == 0).any() else (x, np.asarray(1 / by_channel), none)
    return (x, *steps[node.op_type])


def _by_channel(number: np.ndarray, x: ir.Value) -> np.ndarray | None:
    """Return a constant operand as one number or one a channel of what made ``x``."""
    if number.size == 1:
        return number.reshape(())
    node, shape = x.producer(), dims(x)
    while node is not None and node.op_type not in _HEADS:
        before = node.inputs[0] if constant(node.inputs[0]) is None else node.inputs[1]
        node = None if before is None else before.producer()
    if node is None or shape is None or number.ndim > len(shape):
        return None
    axis = 1 if "Conv" in node.op_type else len(shape) - 1
    full = [1] * (len(shape) - number.ndim) + list(number.shape)
    if any(n != 1 for i, n in enumerate(full) if i != axis):
        return None
    return number.reshape(-1)


def readers_of(value: ir.Value) -> list[ir.Node]:
    """Return the nodes of the model that read a value."""
    return [n for n in value.consumers() if not (n.name or "").startswith(PREFIX)]
