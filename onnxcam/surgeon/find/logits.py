"""The numbers of a tensor before Sigmoid or Softmax, where all that follows only moves them."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import is_float
from onnxcam.surgeon.find.endings import probabilities_of

_ALSO_MOVE = ("GatherND", "GatherElements", "Cast", "Dropout")


@dataclass(frozen=True)
class Unsquashed:
    """A tensor whose squashed numbers are taken before that.

    Attributes:
        value: a tensor like the given one; itself where nothing is squashed.
        kinds: the operators that squash, e.g. ``["Sigmoid"]``.
    """

    value: ir.Value
    kinds: list[str] = field(default_factory=list)


def unsquashed(graph: ir.Graph, value: ir.Value, opset: int) -> Unsquashed:
    """Return a tensor with logits in place of the probabilities in it.

    Many a detector joins boxes and scores behind Sigmoid into one output, ``[N, 4 + C, A]``. What
    moves numbers after Sigmoid (Concat, Slice, Reshape, Transpose, Gather, ...) is written once
    more, reading what Sigmoid reads: every element of the result is the element of ``value``,
    or its logit. So a saturated probability, whose gradient is 0, has a gradient, too.
    """
    kinds: dict[str, None] = {}
    made: dict[ir.Value, ir.Value] = {}
    b = Builder(graph, opset)

    def before(v: ir.Value) -> ir.Value:
        """Return the numbers of ``v`` before they were squashed; itself where none were."""
        if v not in made:
            made[v] = v
            squashed = probabilities_of(v)
            if squashed is not None and is_float(squashed.source):
                kinds[_kind(squashed.nodes)] = None
                made[v] = source = squashed.source
                source.shape = source.shape or v.shape
            else:
                again(v)
        return made[v]

    def again(v: ir.Value) -> None:
        """Write what moves numbers to ``v`` once more, if it moves any that were squashed."""
        node = v.producer()
        if node is None or not is_float(v) or node.domain:
            return
        if node.op_type == "TopK" and v is node.outputs[0]:
            picked(node)
        rounded = _before_rounding(node)
        if rounded is not None and before(rounded) is not rounded:
            made[v] = before(rounded)
        if not _moves(node):
            return
        data = len(node.inputs) if node.op_type == "Concat" else 1
        inputs = [before(i) if i is not None and is_float(i) else i for i in node.inputs[:data]]
        if inputs == list(node.inputs[:data]):
            return
        kept = {name: attribute.value for name, attribute in node.attributes.items()}
        operands = [*inputs, *node.inputs[data:]]
        outputs = b.op_many(node.op_type, operands, len(node.outputs), **kept)
        for old, new in zip(node.outputs, outputs, strict=True):
            made[old] = shaped(new, old)

    def picked(node: ir.Node) -> None:
        """Write the best of what was squashed: what squashes keeps their order."""
        source = node.inputs[0]
        if source is not None and before(source) is not source:
            axis = node.attributes.get_int("axis", -1)
            new = b.op("GatherElements", before(source), node.outputs[1], axis=axis)
            made[node.outputs[0]] = shaped(new, node.outputs[0])

    return Unsquashed(before(value), list(kinds))


def _moves(node: ir.Node) -> bool:
    return has(node, Trait.MOVES) or node.op_type in _ALSO_MOVE


def _before_rounding(node: ir.Node) -> ir.Value | None:
    """Return what a pair of QuantizeLinear and DequantizeLinear rounds."""
    quantized = node.inputs[0] if node.op_type == "DequantizeLinear" else None
    quantizer = None if quantized is None else quantized.producer()
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    return quantizer.inputs[0]


def _kind(nodes: tuple[ir.Node, ...]) -> str:
    """Return Sigmoid, Softmax or LogSoftmax, also where it is written out."""
    if len(nodes) == 1:
        return nodes[0].op_type
    operators = {n.op_type for n in nodes}
    return "Sigmoid" if "Neg" in operators else "Softmax"
