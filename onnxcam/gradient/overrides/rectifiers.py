"""What rectifiers do to a cotangent, other than the derivative ``g * (x > 0)``."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.gradient.backward import Backward, Cotangents, Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.quantization import MISFIT, as_float, divided, for_broadcasting
from onnxcam.gradient.kinds import Pairs, Rule
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.quantized import absorbs_relu
from onnxcam.graph.values import constant, original_name


@dataclass(frozen=True)
class Guided:
    """Let only positive cotangents pass, ``g * (x > 0) * (g > 0)``.

    Springenberg et al. 2014, "Striving for Simplicity: The All Convolutional Net", section 3.4.

    Attributes:
        wide: take activations that only damp what is below 0 for rectifiers too (LeakyRelu, PRelu,
            Elu, Gelu, gates such as SiLU): their derivative, of positive cotangents.
    """

    name: str = "guided"
    wide: bool = False

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return the rule of whatever cuts off below 0."""
        if not (is_rectifier(node) or (self.wide and is_like_rectifier(node))):
            return None
        return _Positive(beneath=beneath, opset=beneath.opset)


@dataclass(frozen=True)
class Deconvnet:
    """Rectify the cotangent and forget the input, ``g * (g > 0)``.

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1.
    """

    name: str = "deconvnet"

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return the rule of whatever cuts off below 0."""
        if not is_rectifier(node):
            return None
        return _Forgetful(beneath=beneath, opset=beneath.opset, refuses=(MISFIT,), gates=False)


def is_rectifier(node: ir.Node) -> bool:
    """Whether the node cuts off everything below 0, however the exporter wrote it."""
    return node.op_type == "Relu" or _data(node) is not None


_DAMPING = {"LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Gelu", "HardSwish", "Mish", "Softplus"}
_DAMPING |= {"Swish", "ThresholdedRelu", "FastGelu", "BiasGelu", "QuickGelu"}
_OPENING = {"Sigmoid", "HardSigmoid", "Erf", "Tanh", "Clip"}
_LONGEST = 6  # nodes from a gate's input to its product


def is_like_rectifier(node: ir.Node) -> bool:
    """Whether a node damps what is below 0: by itself, or as the product of ``x`` and a gate."""
    if node.op_type in _DAMPING:
        return True
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return False
    a, b = node.inputs
    return opens(a, b) or opens(b, a)


def opens(gate: ir.Value | None, x: ir.Value | None) -> bool:
    """Whether ``gate`` is an opening function of ``x``, written in elementwise operators."""
    opened = False
    for _ in range(_LONGEST):
        node = None if gate is None else gate.producer()
        if node is None:
            return False
        opened = opened or node.op_type in _OPENING
        moving = [v for v in node.inputs if v is not None and constant(v) is None]
        elementwise = node.op_type in _OPENING or has(node, Trait.ELEMENTWISE)
        if len(moving) != 1 or not elementwise:
            return False
        gate = moving[0]
        if gate is x:
            return opened
    return False


def _data(node: ir.Node) -> int | None:
    """Return which operand of a rectifier is cut off below 0; ``None`` of any other operator."""
    if node.op_type == "Relu":
        return 0
    if node.op_type == "Clip" and len(node.inputs) > 1 and _is_zero(node.inputs[1]):
        return 0
    if node.op_type == "Max" and len(node.inputs) == 2:
        zeros = [_is_zero(v) for v in node.inputs]
        return zeros.index(False) if sum(zeros) == 1 else None
    return 0 if node.op_type == "QuantizeLinear" and absorbs_relu(node) else None


def _is_zero(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and not array.any()


@dataclass(frozen=True, kw_only=True)
class _Positive(Rule):
    """The rule beneath, given only what is positive."""

    beneath: Rule

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        if node in walk.unclipped:
            return self.beneath.back(walk, node, gs, carrying)
        walk.changed.append(original_name(node) or node.outputs[0].name or "")
        positive = [None if g is None else walk.builder.op("Relu", g) for g in gs]
        return self.passed(walk, node, positive, carrying)

    def passed(
        self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]
    ) -> Pairs:
        """Append what becomes of positive cotangents."""
        return self.beneath.back(walk, node, gs, carrying)


@dataclass(frozen=True, kw_only=True)
class _Forgetful(_Positive):
    """Positive cotangents pass, wherever the input lies."""

    def passed(
        self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]
    ) -> Pairs:
        x, g = node.inputs[_data(node) or 0], gs[0]
        if x is None or g is None or x not in carrying:
            return
        if node.op_type == "QuantizeLinear":
            call = Call(node, walk, self.refuses)
            g = divided(call, g, for_broadcasting(call, as_float(call, call.x(1)), call.x(0)))
        yield x, g
