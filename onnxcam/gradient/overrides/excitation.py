"""Excitation backprop: hand a probability back to the activations that excited a unit.

Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", eq. 4 and 6. The marginal
winning probability of a unit ``j`` among the inputs of units ``i`` is
``P(j) = sum_i P(i) a_j w_ji+ / sum_k a_k w_ki+``, with activations ``a`` that are not negative and
only the positive weights ``w+``. Biases take no part, and a sum that is 0 hands nothing on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import Backward, Cotangents, Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Expansion, Pairs, Rule, Stop
from onnxcam.gradient.overrides.affine import readers_of
from onnxcam.gradient.overrides.base import Over
from onnxcam.gradient.walker import unbroadcast
from onnxcam.graph.builder import shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims, original_name

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_REFUSAL = "excitation backprop has no rule for it"
_TWO = "excitation backprop has no rule for a product of two computed tensors"
REFUSES = (_REFUSAL, _TWO)


@dataclass(frozen=True)
class Excitation:
    """Excitation backprop in place of the derivative.

    The seed is a probability over the units of the differentiated tensor, 1 for one class. Linear
    operators that read negative activations, of which the paper knows none, count them as 0; the
    run says which did (:attr:`onnxcam.gradient.backward.Backward.findings`).

    Attributes:
        name: what messages call it.
        dual: negate the weights of the last linear operators, which makes of a class the one that
            speaks against it (section 3.3).
    """

    name: str = "excitation"
    dual: bool = False

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return how the node's output hands its probability on."""
        kind, found = node.op_type, _KINDS.get(node.op_type, _Refused)
        if isinstance(beneath, Stop) or found is None:
            return None
        if isinstance(beneath, Expansion) and found is not _Passed:
            return None  # the operators that it is expanded into have theirs
        refuses = (*beneath.refuses, *REFUSES)
        if kind == "Resize" and node.attributes.get_string("mode", "nearest") == "cubic":
            found = _Refused  # some of its weights are negative
        if self.dual and where.last and found is _Linear:
            found = _Dual
        return found(beneath=beneath, opset=beneath.opset, refuses=refuses, gates=False)


@dataclass(frozen=True, kw_only=True)
class _Refused(Over):
    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        raise Call(node, walk, self.refuses).refuse(_REFUSAL)


@dataclass(frozen=True, kw_only=True)
class _Passed(Over):
    """An activation hands on what it has."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        x, g = node.inputs[0], gs[0]
        if x is not None and x in carrying and g is not None:
            yield x, g


@dataclass(frozen=True, kw_only=True)
class _Linear(Over):
    """``P(x) = x+ W+^T (P(y) / (W+ x+))``, by the derivative of a copy with positive weights."""

    negated: bool = False

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk, self.refuses), gs[0]
        data = [i for i, v in enumerate(node.inputs) if v is not None and v in carrying]
        if g is None or not data:
            return
        if len(data) > 1 or (data[0] > 0 and node.op_type not in ("MatMul", "Gemm")):
            raise call.refuse(_TWO)
        [index] = data
        x = call.x(index)
        weighted = has(node, Trait.LINEAR)
        given = call.op("Neg", x) if self.negated and not weighted else x
        excited = shaped(call.op("Relu", given), x)
        operands = list(node.inputs)
        operands[index] = excited
        if weighted:
            operands[1 - index] = _positive_weights(call, 1 - index, self.negated)
            del operands[2:]  # the bias
        z = shaped(walk.builder.copy(node, operands), call.y)
        copy = z.producer()
        assert copy is not None
        if given is x:
            _notice_negative(walk, node, x)
        for _, back in self.beneath.back(walk, copy, [_ratio(call, g, z)], {excited}):
            yield x, call.op("Mul", back, excited)


@dataclass(frozen=True, kw_only=True)
class _Dual(_Linear):
    """The same of negated weights, and of what averages what they give."""

    negated: bool = True


@dataclass(frozen=True, kw_only=True)
class _Shared(Over):
    """A sum hands each term its share of what is positive; a constant takes no part."""

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk), gs[0]
        terms = [v for v in node.inputs if v is not None and v in carrying]
        if g is None:
            return
        if len(terms) == 1:
            yield terms[0], unbroadcast(call, g, terms[0])
            return
        excited = [shaped(call.op("Relu", v), v) for v in terms]
        ratio = _ratio(call, g, call.op("Sum", *excited))
        for term, positive in zip(terms, excited, strict=True):
            _notice_negative(walk, node, term)
            yield term, unbroadcast(call, call.op("Mul", ratio, positive), term)


@dataclass(frozen=True, kw_only=True)
class _Scaled(Over):
    """A layer of one weight each: it hands on where both weight and activation are positive.

    Right after a linear operator it is part of that, which then looks at the weight's sign.
    """

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        call, g = Call(node, walk, self.refuses), gs[0]
        data = [i for i, v in enumerate(node.inputs) if v is not None and v in carrying]
        if g is None or not data:
            return
        if node.op_type == "Mul" and len(data) == 2 and _is_silu(node):
            gated = next(v for v in node.inputs if v is not None and not _is_sigmoid(v))
            yield gated, g
            return
        if len(data) > 1 or (data[0] > 0 and node.op_type != "Mul"):
            raise call.refuse(_TWO if node.op_type == "Mul" else _REFUSAL)
        if node.attributes.get_int("training_mode", False):
            raise call.refuse(_REFUSAL)
        x = call.x(data[0])
        if node.op_type == "Sub" or _sign(node) is not None:
            yield x, unbroadcast(call, g, x)
            return
        weight = _weight_of(call, 1 - data[0] if node.op_type == "Mul" else 1)
        zero = call.like(0.0)
        wins = call.op("And", call.op("Greater", x, zero), call.op("Greater", weight, zero))
        _notice_negative(walk, node, x)
        yield x, unbroadcast(call, call.mask(wins, g), x)


def _is_sigmoid(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Sigmoid"


def _is_silu(node: ir.Node) -> bool:
    """Whether a product is ``x sigmoid(x)``."""
    pairs = ((node.inputs[i], node.inputs[1 - i]) for i in (0, 1))
    for x, gate in pairs:
        made = None if gate is None else gate.producer()
        if made is not None and made.op_type == "Sigmoid" and made.inputs[0] is x:
            return True
    return False


def _weight_of(call: Call, index: int) -> ir.Value:
    """Return the factor of a product or a batch normalization, shaped against the activation."""
    weight = call.x(index)
    if call.node.op_type != "BatchNormalization":
        return weight
    space = call.rank(call.x(0)) - 2
    return call.op("Reshape", weight, call.builder.ints(-1, *[1] * max(space, 0)))


def _sign(node: ir.Node) -> tuple[ir.Node, np.ndarray] | None:
    """Return the linear operator that a scale belongs to, and its sign for each channel.

    Exporters write a convolution's scale after it, as a product or a batch normalization.
    """
    if node.op_type not in ("Mul", "Div", "BatchNormalization"):
        return None
    index = 0 if node.op_type != "Mul" or constant(node.inputs[0]) is None else 1
    x, factor = node.inputs[index], constant(node.inputs[1 - index])
    made = None if x is None else x.producer()
    if x is None or made is None or factor is None or len(readers_of(x)) != 1:
        return None
    if made.op_type not in _WEIGHTED or made.domain:
        return None
    sizes = dims(x)
    if sizes is None:
        return None
    axis = 1 if "Conv" in made.op_type else len(sizes) - 1
    shape = list(factor.shape)
    if node.op_type == "BatchNormalization":
        signs = np.sign(factor)
    else:
        full = [1] * (len(sizes) - len(shape)) + shape
        if len(full) != len(sizes) or any(n != 1 for i, n in enumerate(full) if i != axis):
            return None
        signs = np.sign(factor).reshape(-1)
    if (signs < 0).any() and made.op_type == "ConvTranspose":
        return None  # its weights have the channels of a group only
    return made, signs


def _positive_weights(call: Call, index: int, negated: bool = False) -> ir.Value:
    """Return what is positive of the weights, with the sign of a scale that follows."""
    weight, node = call.x(index), call.node
    readers = readers_of(call.y)
    found = _sign(readers[0]) if len(readers) == 1 else None
    if found is not None and (found[1] < 0).any():
        signs, rank = found[1], call.rank(weight)
        axis = 0 if node.op_type == "Conv" else rank - 1
        if node.op_type == "Gemm" and node.attributes.get_int("transB", False):
            axis = 0
        shape = [-1 if i == axis else 1 for i in range(rank)]
        factor = call.builder.constant(signs.reshape(shape), call.kind)
        weight = call.op("Mul", weight, factor)
    weight = call.op("Neg", weight) if negated else weight
    return shaped(call.op("Relu", weight), call.x(index))


def _ratio(call: Call, g: ir.Value, z: ir.Value) -> ir.Value:
    """Return ``g / z`` where z is positive, and 0 elsewhere."""
    zero = call.like(0.0)
    positive = call.op("Greater", z, zero)
    return call.op("Where", positive, call.op("Div", g, z), zero)


def _notice_negative(walk: Backward, node: ir.Node, x: ir.Value) -> None:
    """Have the run find out whether an activation is negative somewhere."""
    builder = walk.builder
    if builder.graph is not builder.root:
        return  # what a subgraph finds does not get out of it
    name = original_name(node) or node.outputs[0].name or ""
    zero = builder.constant(0.0, x.dtype or ir.DataType.FLOAT)
    found = builder.op("Less", builder.op("ReduceMin", x, keepdims=0), zero)
    before = walk.findings.get(name)
    walk.findings[name] = found if before is None else builder.op("Or", before, found)


def _table(names: dict[type[Over] | None, str]) -> dict[str, type[Over] | None]:
    return {name: kind for kind, listed in names.items() for name in listed.split()}


_KINDS = _table(
    {
        # activations hand on what they have, and so do quantizers and what changes a type
        _Passed: "Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Clip Sigmoid HardSigmoid Tanh "
        "HardSwish Swish Mish Gelu FastGelu QuickGelu Softplus Softsign LRN QuantizeLinear "
        "DequantizeLinear Cast CastLike",
        _Linear: "Conv ConvTranspose Gemm MatMul AveragePool GlobalAveragePool ReduceMean "
        "ReduceSum Resize",
        _Shared: "Add Sum",
        _Scaled: "Mul Div Sub BatchNormalization",
        # the derivative moves a probability, or gives it to the winner
        None: "Identity Dropout Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Concat Pad "
        "Gather Expand Tile DepthToSpace SpaceToDepth MaxPool GlobalMaxPool Max ReduceMax If Loop "
        "Scan",
    }
)
