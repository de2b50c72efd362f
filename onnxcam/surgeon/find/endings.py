"""Walk from an output back to the logits, through whatever squashes, scales or reshapes them.

Gradients of a probability vanish as it nears 1, so the walk goes back to the scores before
Softmax or Sigmoid (Selvaraju et al. 2017: "the score for class c, y^c (before the softmax)"),
also where these are written out in other operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import onnx_ir as ir

from onnxcam.graph.operators import RUNTIME_DOMAINS, Trait, has
from onnxcam.graph.values import constant, dims, is_float
from onnxcam.surgeon.find.axes import class_axis, class_count
from onnxcam.surgeon.find.quantized import scale_and_zero_point

_KEEPS = Trait.PASSES | Trait.RESHAPES | Trait.QUANTIZES
_ALSO_SQUASH = ("Tanh", "HardSigmoid", "Softsign")


class Kind(Enum):
    """What a step does to the scores."""

    KEEPS = auto()  # moves or converts them
    SCALES = auto()  # passed only where something squashes before it
    SQUASHES = auto()
    PROBABILITIES = auto()  # squashes, and what it gives are probabilities


@dataclass(frozen=True)
class Step:
    """One step back: the scores before it, its nodes, the last one first, and what they do."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    kind: Kind


@dataclass(frozen=True)
class Ending:
    """What lies between an output and its logits.

    Attributes:
        value: the logits, the output itself where nothing squashes.
        passed: the nodes on the way back, nearest the output first.
        kind: the strongest that was passed.
    """

    value: ir.Value
    passed: tuple[ir.Node, ...]
    kind: Kind


def walk_back(output: ir.Value) -> Ending:
    """Return the logits of an output ``[N, C]``, up to axes of length 1.

    They are the last floating-point tensor there, or the quantized one before a quantized Softmax
    or Sigmoid. What squashes without giving probabilities (Tanh, HardSigmoid, Clip to 0..1) is
    passed once.
    """
    best, passed, kind = output, [], Kind.KEEPS
    pending: list[ir.Node] = []
    value, waits, strongest = output, False, Kind.KEEPS
    while (step := _step(value)) is not None:
        if strongest is not Kind.KEEPS and step.kind in (Kind.SCALES, Kind.SQUASHES):
            break
        if step.source.shape is None and not _reshapes(step.nodes[-1]):
            step.source.shape = value.shape  # the other operators keep the shape
        if class_axis(step.source) is None:
            break
        if any(_reshapes(n) for n in step.nodes) and not _same_classes(step.source, value):
            break
        pending += step.nodes
        value = step.source
        waits = step.kind is Kind.SCALES or (waits and step.kind is Kind.KEEPS)
        if step.kind in (Kind.SQUASHES, Kind.PROBABILITIES):
            strongest = step.kind
        if waits:
            continue
        quantized = strongest is not Kind.KEEPS and scale_and_zero_point(value) is not None
        if is_float(value) or quantized:
            best, kind = value, strongest
            passed += pending
            pending = []
    return Ending(best, tuple(passed), kind)


def behind(value: ir.Value, passed: Callable[[ir.Node], bool] | None = None) -> ir.Value:
    """Return what a value was before nodes that are passed: by default those that only move it."""
    passes = passed or (lambda n: has(n, Trait.PASSES | Trait.RESHAPES))
    while (node := value.producer()) is not None and passes(node):
        source = node.inputs[0]
        if source is None:
            break
        value = source
    return value


def squashed_before(value: ir.Value) -> ir.Node | None:
    """Return a Softmax or the like between the last linear layer and a score.

    Unlike the walk back, this passes whatever picks, adds or multiplies classes; of several the one
    of most classes is returned.
    """
    pending, seen, found = [value], set[ir.Value](), list[Step]()
    while pending:
        one = pending.pop()
        node = one.producer()
        if one in seen or node is None or has(node, Trait.LINEAR) or len(dims(one) or []) > 3:
            continue
        seen.add(one)
        step = _step(one)
        if step is not None and step.kind in (Kind.PROBABILITIES, Kind.SQUASHES):
            found.append(step)
        pending += [v for v in node.inputs if v is not None]
    if not found:
        return None
    return max(found, key=lambda s: class_count(s.source) or 0).nodes[-1]


def probability(value: ir.Value) -> ir.Node | None:
    """Return the node that has turned an inner tensor into probabilities already."""
    step = _step(value)
    while step is not None and step.kind in (Kind.KEEPS, Kind.SCALES):
        step = _step(step.source)
    return step.nodes[0] if step is not None and step.kind is Kind.PROBABILITIES else None


def probabilities_of(value: ir.Value) -> Step | None:
    """Return the Softmax, Sigmoid or the like, perhaps written out, that gives a tensor."""
    step = _step(value)
    return step if step is not None and step.kind is Kind.PROBABILITIES else None


def _step(value: ir.Value) -> Step | None:
    node = value.producer()
    if node is None or node.domain not in RUNTIME_DOMAINS:
        return None
    first = node.inputs[0] if node.inputs else None
    written = _written_out(node)
    if written is not None:
        return written
    if first is None:
        return None
    if has(node, Trait.SQUASHES):
        return Step(first, (node,), Kind.PROBABILITIES)
    if node.op_type in _ALSO_SQUASH:
        return Step(first, (node,), Kind.SQUASHES)
    best = node.op_type == "TopK" and value is node.outputs[0]  # what it picks from has classes
    if has(node, _KEEPS) or _moves_classes(node) or best:
        return Step(first, (node,), Kind.KEEPS)
    if node.op_type == "Log":
        return Step(first, (node,), Kind.SCALES)
    if node.op_type == "Clip":
        between = [_number(v) for v in node.inputs[1:3]]
        between += [node.attributes.get_float(n, None) for n in ("min", "max")]
        unit = [b for b in between if b is not None] == [0, 1]
        return Step(first, (node,), Kind.SQUASHES if unit else Kind.SCALES)
    return _scaled(node)


def _scaled(node: ir.Node) -> Step | None:
    """Return the step before a sum, product or bound with one constant number."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div", "Min", "Max") or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if _number(a) is not None and node.op_type not in ("Sub", "Div"):
        a, b = b, a
    number = _number(b)
    if a is None or number is None or (node.op_type in ("Mul", "Div") and number <= 0):
        return None  # a negative factor would make the last the first
    return Step(a, (node,), Kind.SCALES)


def _written_out(node: ir.Node) -> Step | None:
    """Return the step before a Softmax, LogSoftmax or Sigmoid in other operators, if it ends here.

    ``e / ReduceSum(e)`` with ``e = Exp(z)``; ``z - Log(ReduceSum(Exp(z)))`` or
    ``z - ReduceLogSumExp(z)``; ``1 / (1 + Exp(-x))``. ``z`` may be ``x - ReduceMax(x)``.
    """
    inputs = list(node.inputs)
    if node.op_type == "Reciprocal":
        return _sigmoid((node,), inputs[0])
    if node.op_type == "Div" and _number(inputs[0]) == 1:
        return _sigmoid((node,), inputs[1])
    if node.op_type in ("Div", "Mul"):
        exp, divisor = _made(inputs[0], "Exp"), inputs[1]
        if node.op_type == "Mul":
            inverse = _made(divisor, "Reciprocal")
            divisor = None if inverse is None else inverse.inputs[0]
        added = _made(divisor, "ReduceSum")
        if exp is None or added is None or added.inputs[0] is not inputs[0]:
            return None
        return _unshifted((node, exp), exp.inputs[0])
    if node.op_type == "Sub":
        z = inputs[0]
        whole = _made(inputs[1], "ReduceLogSumExp")
        log = _made(inputs[1], "Log")
        if whole is not None and whole.inputs[0] is z:
            return _unshifted((node,), z)
        added = None if log is None else _made(log.inputs[0], "ReduceSum")
        exp = None if added is None else _made(added.inputs[0], "Exp")
        if exp is not None and exp.inputs[0] is z:
            return _unshifted((node,), z)
    return None


def _sigmoid(nodes: tuple[ir.Node, ...], denominator: ir.Value | None) -> Step | None:
    added = _made(denominator, "Add")
    if added is None or not any(_number(v) == 1 for v in added.inputs):
        return None
    exp = next((n for v in added.inputs if (n := _made(v, "Exp")) is not None), None)
    negated = None if exp is None else _made(exp.inputs[0], "Neg")
    if exp is None or negated is None or negated.inputs[0] is None:
        return None
    return Step(negated.inputs[0], (*nodes, exp, negated), Kind.PROBABILITIES)


def _unshifted(nodes: tuple[ir.Node, ...], z: ir.Value | None) -> Step | None:
    """Return the step to what the largest score was subtracted from."""
    shift = _made(z, "Sub")
    largest = None if shift is None else _made(shift.inputs[1], "ReduceMax")
    if shift is not None and largest is not None and largest.inputs[0] is shift.inputs[0]:
        nodes, z = (*nodes, shift), shift.inputs[0]
    return None if z is None else Step(z, nodes, Kind.PROBABILITIES)


def _made(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """Return the node that computes a value, if it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in operators else None


def _number(value: ir.Value | None) -> float | None:
    """Return the number that a constant holds in all its elements."""
    array = constant(value)
    if array is None or array.size == 0 or not np.all(array == array.flat[0]):
        return None
    return float(array.flat[0])


def _reshapes(node: ir.Node) -> bool:
    return has(node, Trait.RESHAPES) or node.op_type == "Transpose"


def _moves_classes(node: ir.Node) -> bool:
    """Whether a Transpose leaves the images in front."""
    permuted = node.attributes.get_ints("perm") if node.op_type == "Transpose" else None
    return permuted is not None and len(permuted) > 0 and permuted[0] == 0


def _same_classes(before: ir.Value, after: ir.Value) -> bool:
    """Whether only axes of length 1 differ, so that classes stay classes."""
    count, shape = class_count(before), dims(before)
    return shape is not None and count is not None and count == class_count(after)
