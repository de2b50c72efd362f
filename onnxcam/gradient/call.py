"""What a rule is given: one node, with its values and attributes, and a way to append operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient.backward import Backward
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import constant, describe, dims, is_float

# What any rule may refuse; docs/operators.md says so once.
COMMON = (
    "operand {} is missing",
    "the rank of {} is unknown",
    "the rank of {} is unknown, since shape inference ends at {}",
    "the gradient comes through its second output",
    "the gradient comes through its output {}",
)


def must_be_known(what: str) -> str:
    """Return the reason with which :meth:`Call.known` refuses a computed operand."""
    return f"its {what} must be known before the run"


class Call:
    """One node being differentiated.

    Attributes:
        node: the node.
        walk: the walk that came to it.
        builder: appends operators.
        op: the builder's :meth:`~onnxcam.graph.builder.Builder.op`.
        refuses: the reasons that the node's rule declares.
    """

    def __init__(self, node: ir.Node, walk: Backward, refuses: tuple[str, ...] = ()) -> None:
        self.node = node
        self.walk = walk
        self.builder: Builder = walk.builder
        self.op = walk.builder.op
        self.refuses = refuses
        self.split_t = walk.split_t

    def x(self, index: int) -> ir.Value:
        """Return an operand that must be there."""
        value = self.operand(index)
        if value is None:
            raise self.refuse("operand {} is missing", index)
        return dequantized(self.builder, value)

    def operand(self, index: int) -> ir.Value | None:
        """Return an operand, ``None`` when it was left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value as plain Python data."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        value = found.value
        return list(value) if isinstance(value, (list, tuple)) else value

    def refuse(self, reason: str, *details: object) -> NoGradientError:
        """Return the error that this node cannot be differentiated, and why.

        ``reason`` is one that the rule declares (``refuses=``), with ``{}`` for each detail.
        """
        assert reason in (*COMMON, *self.refuses), f"not declared by the rule: {reason}"
        where = describe(self.node, self.builder.opset)
        why = reason.format(*details)
        return NoGradientError(f"{where} cannot be differentiated here: {why}.")

    def dims(self, value: ir.Value) -> list[int | str | None]:
        """Return the dimensions of a value whose rank must be known."""
        found = dims(value)
        if found is None:
            name, culprit = f"'{value.name}'", _first_unknown(value)
            if culprit is None:
                raise self.refuse(COMMON[1], name)
            raise self.refuse(COMMON[2], name, describe(culprit))
        return found

    def rank(self, value: ir.Value) -> int:
        """Return the rank of a value."""
        return len(self.dims(value))

    def static(self, value: ir.Value, axis: int) -> int | None:
        """Return the length of an axis when it is known."""
        length = self.dims(value)[axis]
        return length if isinstance(length, int) else None

    def known(self, index: int, what: str) -> np.ndarray:
        """Return an operand that must be a constant; the rule declares ``must_be_known(what)``."""
        value = self.operand(index)
        array = constant(value)
        if array is None:
            raise self.refuse(must_be_known(what))
        return array

    def optional(self, index: int, what: str) -> np.ndarray | None:
        """Return an operand that may be left out but must be constant."""
        return None if self.operand(index) is None else self.known(index, what)

    def axis(self, value: ir.Value, default: int = 0) -> int:
        """Return the attribute ``axis`` counted from the end, so that it holds under ``T``."""
        axis = int(self.attribute("axis", default))
        return axis - self.rank(value) if axis >= 0 else axis

    @property
    def kind(self) -> ir.DataType:
        """The node's floating-point type."""
        kinds = (v.dtype for v in (self.y, self.operand(0)) if v is not None and is_float(v))
        return next(kinds, None) or ir.DataType.FLOAT

    def like(self, number: float) -> ir.Value:
        """Return a scalar constant of the node's floating-point type."""
        return self.builder.constant(number, self.kind)

    def merge_t(self, g: ir.Value, like: ir.Value, keep: int = 1) -> ir.Value:
        """As :meth:`onnxcam.gradient.backward.Backward.merge_t`, for a value of known rank."""
        self.dims(like)
        return self.walk.merge_t(g, like, keep)

    def mask(self, condition: ir.Value, g: ir.Value) -> ir.Value:
        """Return ``g`` where the condition holds and 0 elsewhere.

        A product is several times faster than ``Where``, but would make NaN of an infinite
        cotangent.
        """
        if self.walk.finite:
            return self.op("Mul", g, self.op("Cast", condition, to=self.kind))
        return self.op("Where", condition, g, self.like(0.0))


def _first_unknown(value: ir.Value) -> ir.Node | None:
    """Return the node that shape inference did not get past."""
    node = value.producer()
    while node is not None:
        before = next((v for v in node.inputs if v is not None and v.shape is None), None)
        producer = before.producer() if before is not None else None
        if producer is None:
            break
        node = producer
    return node


def dequantized(builder: Builder, value: ir.Value) -> ir.Value:
    """Return stored integer weights as floats of their own, other values as they are.

    The runtime fuses ``DequantizeLinear`` with the product that reads it, and that changes the
    prediction in the third digit; a second reader would prevent it. Written as arithmetic on the
    stored integers, the copy is folded once, when the session is made.
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return value
    quantized, scale, zero = (*node.inputs, None)[:3]
    factors = constant(scale)
    if factors is None or quantized is None or quantized.const_value is None:
        return value
    if factors.size > 1 and (factors.ndim != 1 or "block_size" in node.attributes):
        return value
    per_axis = factors.size > 1
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    rank = len(quantized.const_value.shape)
    column = [-1 if i == axis % max(rank, 1) else 1 for i in range(rank)]
    kind: ir.DataType = value.dtype or ir.DataType.FLOAT

    def along(operand: ir.Value) -> ir.Value:
        return builder.op("Reshape", operand, builder.ints(*column)) if per_axis else operand

    def made() -> ir.Value:
        copy = builder.op("Cast", quantized, to=kind)
        if zero is not None:
            copy = builder.op("Sub", copy, along(builder.op("Cast", zero, to=kind)))
        assert scale is not None
        copy = builder.op("Mul", copy, along(scale))
        copy.shape, copy.dtype = value.shape, kind
        return copy

    return builder.once("dequantized", value, made)
