"""DeepLIFT's rescale rule: slopes between the image and a reference in place of the derivative.

Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences",
section 3.5.1. The reference runs beside the image, through copies of the network's operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.gradient.backward import Backward, Cotangents, Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Expansion, Pairs, Rule, Stop
from onnxcam.gradient.overrides.base import Over, listed
from onnxcam.gradient.overrides.rectifiers import opens

_REFUSAL = "DeepLIFT's rescale rule has no form for it"
_TWO = "DeepLIFT's rescale rule has no form for a product of two computed tensors"
REFUSES = (_REFUSAL, _TWO)
_SAME = 1e-7  # differences below are none: there the derivative stands


@dataclass(frozen=True)
class DeepLift:
    """Rescale in place of the derivative.

    Attributes:
        reference: returns what a tensor of the network is for the reference.
        name: what messages call it.
    """

    reference: Callable[[ir.Value], ir.Value]
    name: str = "deep-lift"

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return the slope of what is not linear."""
        if isinstance(beneath, Stop) or node.op_type in _LINEAR:
            return None
        refuses, of = (*beneath.refuses, *REFUSES), self.reference
        if node.op_type in _CURVED:
            return _Slope(beneath=beneath, opset=beneath.opset, refuses=refuses, of=of, gates=False)
        if isinstance(beneath, Expansion):
            return None
        kind = _Winner if node.op_type in _WINNERS else _Product
        return kind(beneath=beneath, opset=beneath.opset, refuses=refuses, of=of, gates=False)


@dataclass(frozen=True, kw_only=True)
class _Override(Over):
    of: Callable[[ir.Value], ir.Value]

    def divided(
        self, call: Call, numerator: ir.Value, x: ir.Value, otherwise: ir.Value
    ) -> ir.Value:
        """Return a number for each element over its difference from the reference."""
        difference = call.op("Sub", x, self.of(x))
        same = call.op("Less", call.op("Abs", difference), call.like(_SAME))
        safe = call.op("Where", same, call.like(1.0), difference)
        return call.op("Where", same, otherwise, call.op("Div", numerator, safe))

    def slope(
        self, walk: Backward, node: ir.Node, gs: Cotangents, x: ir.Value, y: ir.Value
    ) -> ir.Value:
        """Return ``g (y - y0) / (x - x0)``."""
        call, g = Call(node, walk, self.refuses), gs[0]
        assert g is not None
        derivative = next((d for v, d in self.beneath.back(walk, node, gs, {x}) if v is x), None)
        if derivative is None:
            raise call.refuse(_REFUSAL)
        change = call.op("Mul", g, call.op("Sub", y, self.of(y)))
        return self.divided(call, change, x, derivative)


@dataclass(frozen=True, kw_only=True)
class _Slope(_Override):
    """``g (y - y0) / (x - x0)``."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        data = [v for v in node.inputs if v is not None and v in carrying]
        if gs[0] is None or not data:
            return
        if len(data) > 1:
            raise Call(node, walk, self.refuses).refuse(_REFUSAL)
        yield data[0], self.slope(walk, node, gs, data[0], node.outputs[0])


@dataclass(frozen=True, kw_only=True)
class _Winner(_Override):
    """What the larger of both maxima gained goes to the image's winner, the rest to the other."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g, x = Call(node, walk, self.refuses), gs[0], node.inputs[0]
        if g is None or x is None or x not in carrying:
            return
        y, before = call.y, self.of(call.y)
        larger = call.op("Max", y, before)
        gained = call.op("Mul", g, call.op("Sub", larger, before))
        lost = call.op("Mul", g, call.op("Sub", y, larger))
        [(_, derivative)] = self.beneath.back(walk, node, gs, {x})
        [(_, up)] = self.beneath.back(walk, node, [gained], {x})
        reference, copy = self.of(x), before.producer()
        assert copy is not None
        [(_, down)] = self.beneath.back(walk, copy, [lost], {reference})
        yield x, self.divided(call, call.op("Add", up, down), x, derivative)


@dataclass(frozen=True, kw_only=True)
class _Product(_Override):
    """With a constant it is linear, and with a gate of itself one function of what is gated."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call = Call(node, walk, self.refuses)
        data = [v for v in node.inputs if v is not None and v in carrying]
        if node.op_type not in _PRODUCTS:
            raise call.refuse(_REFUSAL)
        if len(data) == 2 and node.op_type == "Mul":
            for x, gate in (data, data[::-1]):
                if opens(gate, x):
                    yield x, self.slope(walk, node, gs, x, node.outputs[0])
                    return
        if len(data) > 1 or (node.op_type == "Div" and data[:1] != [node.inputs[0]]):
            raise call.refuse(_TWO)
        yield from self.beneath.back(walk, node, gs, carrying)


_CURVED = listed(
    "Relu LeakyRelu Elu Selu Celu ThresholdedRelu Clip Sigmoid HardSigmoid Tanh HardSwish Swish "
    "Mish Gelu FastGelu QuickGelu Softplus Softsign Erf Exp Sqrt Log Abs Reciprocal Max Min"
)
_WINNERS = listed("MaxPool GlobalMaxPool")
_PRODUCTS = listed("Conv ConvTranspose Gemm MatMul Einsum Mul Div")
_LINEAR = listed(
    "Add Sub Sum Mean Neg BatchNormalization AveragePool GlobalAveragePool ReduceMean ReduceSum "
    "Resize Identity Dropout Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Concat Pad "
    "Gather Expand Tile DepthToSpace SpaceToDepth Cast CastLike QuantizeLinear DequantizeLinear"
)
