"""Layer-wise relevance propagation, written as a changed gradient.

Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
Relevance Propagation"; Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview";
for transformers Achtibat et al. 2024, "AttnLRP".

The relevance ``R`` of a value ``x`` is ``x G``, where ``G`` is what the walk hands on in place of
the derivative. So a sum, which hands each term its share ``x / (x + y)`` of ``R``, hands on ``G``
as it is, as does what only moves or averages numbers; a rectifier, whose relevance passes
unchanged, hands on ``G y / x``. A linear operator turns ``R = G z`` into the shares that
:mod:`~onnxcam.gradient.overrides.contributions` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.gradient.backward import Backward, Cotangents, Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Expansion, Pairs, Rule, Stop
from onnxcam.gradient.overrides.affine import Affine, affine_of
from onnxcam.gradient.overrides.base import Over, listed
from onnxcam.gradient.overrides.contributions import Contributions, Epsilon, Flat, stabilized
from onnxcam.gradient.overrides.rectifiers import opens
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant

_REFUSAL = "relevance propagation has no rule for it"
_COMPUTED = "relevance propagation has no rule for computed weights"
REFUSES = (_REFUSAL, _COMPUTED)


_EPSILON = Epsilon()


@dataclass(frozen=True)
class Relevance:
    """Relevance propagation in place of the derivative.

    Attributes:
        name: what messages call it.
        conv: the rule of convolutions.
        dense: the rule of all other linear operators.
        flat: whether the first linear operators spread relevance evenly over what they read; the
            result is then the relevance itself, in place of what the image is to be multiplied by.
    """

    name: str = "lrp"
    conv: Contributions = _EPSILON
    dense: Contributions = _EPSILON
    flat: bool = False

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return how the node's output hands its relevance on."""
        kind = node.op_type
        if isinstance(beneath, Stop) or kind in _BY_DERIVATIVE:
            return None
        refuses, opset = (*beneath.refuses, *REFUSES), beneath.opset
        if kind in _ACTIVATIONS:
            return _Activation(beneath=beneath, opset=opset, refuses=refuses, gates=False)
        if isinstance(beneath, Expansion):
            return None  # the operators that it is expanded into have theirs
        if kind in _AFFINE:
            return _Linear(beneath=beneath, opset=opset, refuses=refuses, gates=False, how=self)
        if kind in _NORMS:
            return _Normalized(beneath=beneath, opset=opset, refuses=refuses, gates=False)
        return _Refused(beneath=beneath, opset=opset, refuses=refuses, gates=False)

    def of(self, affine: Affine, where: Where) -> Contributions:
        """Return the rule of a linear operator."""
        if self.flat and where.first:
            return Flat()
        return self.conv if has(affine.node, Trait.CONVOLUTION) else self.dense


@dataclass(frozen=True, kw_only=True)
class _Refused(Over):
    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        raise Call(node, walk, self.refuses).refuse(_REFUSAL)


@dataclass(frozen=True, kw_only=True)
class _Activation(Over):
    """``G y / x``: the relevance of an activation is that of what it reads."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk, self.refuses), gs[0]
        x = node.inputs[0]
        if g is None or x is None or x not in carrying:
            return
        slope = call.op("Div", call.y, stabilized(call, x, 1e-9))
        yield x, call.op("Mul", g, slope)


@dataclass(frozen=True, kw_only=True)
class _Linear(Over):
    """Sums of products: with weights, with a gate, or of two computed tensors."""

    how: Relevance

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk, self.refuses), gs[0]
        data = [i for i, v in enumerate(node.inputs) if v is not None and v in carrying]
        if g is None or not data:
            return
        if len(data) > 1:
            yield from self._of_computed(call, g, carrying)
            return
        affine = affine_of(node, walk.ends)
        if affine is None or affine.x not in carrying:
            if has(node, Trait.LINEAR):
                raise call.refuse(_COMPUTED)
            yield from self.beneath.back(walk, node, gs, carrying)  # a factor, a constant
            return
        beneath = walk.rule_for(affine.node)
        rule = beneath.beneath if isinstance(beneath, Over) else beneath
        assert isinstance(rule, Rule)
        contributions = self.how.of(affine, walk.where(affine.node))
        head = Call(affine.node, walk, self.refuses)
        yield affine.x, contributions.back(head, affine, rule, call.op("Mul", g, call.y), g, call.y)

    def _of_computed(self, call: Call, g: ir.Value, carrying: set[ir.Value]) -> Pairs:
        """What only scales takes no relevance; two of a kind take half each."""
        node, kind = call.node, call.node.op_type
        pairs = list(self.beneath.back(call.walk, node, [g], carrying))
        if kind in _ADDING:
            yield from pairs
            return
        if kind not in ("Mul", "Div", "MatMul", "Einsum"):
            raise call.refuse(_COMPUTED)
        a, b = node.inputs[0], node.inputs[1]
        scale = b if kind == "Div" else None
        if kind == "Mul":
            scale = b if _scales(b, a) else a if _scales(a, b) else None
        for value, found in pairs:
            if scale is None:
                yield value, call.op("Mul", found, call.like(0.5))
            elif value is not scale:
                yield value, found


def _scales(factor: ir.Value | None, x: ir.Value | None) -> bool:
    """Whether a factor only damps or normalizes: a gate of anything, or one over a computed sum."""
    if opens(factor, x):
        return True
    node = None if factor is None else factor.producer()
    if node is None:
        return False
    inverse = node.op_type == "Div" and constant(node.inputs[0]) is not None
    return inverse or node.op_type in ("Sigmoid", "HardSigmoid", "Softmax", "Reciprocal")


@dataclass(frozen=True, kw_only=True)
class _Normalized(Over):
    """The deviation is taken as a constant, so that a normalization is linear."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk, self.refuses), gs[0]
        x = node.inputs[0]
        if g is None or x is None or x not in carrying:
            return
        rank = call.rank(x)
        if node.op_type == "InstanceNormalization":
            axes = list(range(2 - rank, 0))
        else:
            axes = list(range(call.axis(x, -1), 0))
        b, scale = walk.builder, call.x(1)
        if node.op_type == "InstanceNormalization":
            scale = call.op("Reshape", scale, b.ints(-1, *[1] * (rank - 2)))
        centred = x
        if node.op_type != "RMSNormalization":
            centred = call.op("Sub", x, b.mean(x, axes, keepdims=True))
        variance = b.mean(call.op("Mul", centred, centred), axes, keepdims=True)
        epsilon = call.like(float(call.attribute("epsilon", 1e-5)))
        deviation = call.op("Sqrt", call.op("Add", variance, epsilon))
        found = call.op("Div", call.op("Mul", g, scale), deviation)
        if node.op_type != "RMSNormalization":
            found = call.op("Sub", found, b.mean(found, axes, keepdims=True))
        yield x, found


_ACTIVATIONS = listed(
    "LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Clip Sigmoid HardSigmoid Tanh HardSwish Swish "
    "Mish Gelu FastGelu QuickGelu Softplus Softsign Erf"
)
_ADDING = listed("Add Sub Sum")
_AFFINE = _ADDING | listed("Conv ConvTranspose Gemm MatMul Einsum Mul Div BatchNormalization")
_NORMS = listed("LayerNormalization InstanceNormalization RMSNormalization")
_BY_DERIVATIVE = listed(
    "Relu Softmax AveragePool GlobalAveragePool ReduceMean ReduceSum Mean Resize Identity Dropout "
    "Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Concat Pad Gather Expand Tile Neg "
    "DepthToSpace SpaceToDepth MaxPool GlobalMaxPool Max Min ReduceMax Cast CastLike Where If Loop "
    "Scan QuantizeLinear DequantizeLinear"
)
