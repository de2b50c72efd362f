"""Weigh which outputs hold class scores: an exported model rarely says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import depends_on, dims, is_float, leads_to
from onnxcam.surgeon.find.axes import class_axis, class_count
from onnxcam.surgeon.find.best import find_best
from onnxcam.surgeon.find.endings import Ending, Kind, behind, walk_back

_SCORES = re.compile(
    r"class(es|ification|ifier)?|cls|confidence|labels?|logits?|pred(ictions?)?|"
    r"prob(s|ability|abilities)?|scores?|softmax"
)
_OTHERS = re.compile(
    r"anchors?|aux(iliary)?|b?box(es)?|coord(s|inates?)?|deltas?|descriptors?|embed(dings?)?|"
    r"feat(s|ures?)?|hidden|keypoints?|kps|landmarks?|latent|loc|masks?|offsets?|pose|rois|states?"
)
# Points of evidence. What a Softmax gives are class scores whatever the name.
_SOFTMAX, _SIGMOID, _NAME, _LINEAR = 5, 3, 2, 1
_OTHER_NAME, _READ_ON, _ONE, _FOUR = -5, -4, -1, -1
_NEVER = -9
CERTAIN = 4
PLAUSIBLE = 0


@dataclass(frozen=True)
class Head:
    """An output that may hold class scores.

    Attributes:
        output: the output.
        ending: what lies between it and its logits.
        evidence: how much speaks for class scores; from :data:`CERTAIN` on nothing else is likely,
            below :data:`PLAUSIBLE` they are not.
        reason: what speaks against them, ``""`` for nothing.
        suppression: the NonMaxSuppression before it.
    """

    output: ir.Value
    ending: Ending
    evidence: int
    reason: str
    suppression: ir.Node | None = None


def heads(graph: ir.Graph, batch: int | str | None) -> list[Head]:
    """Return the outputs shaped like class scores, in the order in which they are computed.

    Args:
        graph: a prepared graph.
        batch: the length of the image input's first axis.
    """
    moving = depends_on(graph, set(graph.inputs))
    before = {o: leads_to(o) for o in graph.outputs if o in moving}
    best = find_best(graph)
    listed = () if best is None else best.outputs
    found = [
        _head(o, before, several=len(before) > 1, listed=o.name in listed)
        for o in before
        if _shaped(o) and of_images(o, batch)
    ]
    if not found:
        found = [_chosen_of(o, p) for o in before if (p := _picked_from(o)) is not None]
    order = {node: i for i, node in enumerate(graph)}
    return sorted(found, key=lambda h: order.get(h.output.producer(), -1))  # type: ignore[arg-type]


def _head(
    output: ir.Value, before: dict[ir.Value, set[ir.Value]], several: bool, listed: bool
) -> Head:
    ending = walk_back(output)
    words = _words(output.name or "")
    count, evidence, reasons = class_count(output), 0, []
    sigmoid = any("Sigmoid" in n.op_type for n in ending.passed)
    certain = ending.kind is Kind.PROBABILITIES and not sigmoid  # a box may pass a Sigmoid, too
    if ending.kind is Kind.PROBABILITIES:
        evidence += _SIGMOID if sigmoid else _SOFTMAX
    other = next((w for w in words if _OTHERS.fullmatch(w)), None)
    if any(_SCORES.fullmatch(w) for w in words):
        evidence += _NAME
    elif other is not None and not certain:
        evidence += _OTHER_NAME
        reasons.append(f"its name says '{other}'")
    node = _last_computation(ending.value)
    if node is not None and has(node, Trait.LINEAR):
        evidence += _LINEAR
    if has_unit_length(output):
        evidence = _NEVER
        reasons.append("it is brought to length 1, as embeddings are")
    if listed:
        evidence = _NEVER
        reasons.append("it lists the best boxes of a detector, not one row an image")
    suppression = _suppression(before[output])
    if suppression is not None:
        evidence = _NEVER
        reasons.append("it holds what NonMaxSuppression left, not one row an image")
    read = any(ending.value in b for o, b in before.items() if o is not output)
    if read and not certain:
        evidence += _READ_ON
        reasons.append("another output is computed from it")
    if several and count == 1:
        evidence += _ONE
    if several and count == 4 and not certain:
        evidence += _FOUR
    return Head(output, ending, evidence, "; ".join(reasons), suppression)


def _picked_from(output: ir.Value) -> ir.Value | None:
    """Return the class scores whose best is an output of whole numbers."""
    node = behind(output).producer()
    source = node.inputs[0] if node is not None and node.op_type in ("ArgMax", "TopK") else None
    fits = source is not None and _shaped(source) and class_axis(source) is not None
    return source if fits else None


def _chosen_of(output: ir.Value, scores: ir.Value) -> Head:
    return Head(output, walk_back(scores), CERTAIN, "")


def _words(name: str) -> list[str]:
    """Return the words of a name, ``camelCase`` and ``snake_case`` taken apart."""
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _shaped(value: ir.Value) -> bool:
    """Whether a tensor has one axis of classes, or is one number an image."""
    if value.dtype is not None and not (
        is_float(value) or value.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
    ):
        return False
    shape = dims(value)
    if shape is None or (len(shape) > 1 and class_axis(value) is None):
        return False
    return len(shape) > 0


def has_images_first(value: ir.Value, batch: int | str | None) -> bool:
    """Whether a tensor's first axis is the images, and others follow."""
    several = len(dims(value) or []) > 1
    return several and of_images(value, batch) and _suppression(leads_to(value)) is None


def _suppression(before: set[ir.Value]) -> ir.Node | None:
    nodes = (v.producer() for v in before)
    return next((n for n in nodes if n and n.op_type == "NonMaxSuppression"), None)


def of_images(value: ir.Value, batch: int | str | None) -> bool:
    """Whether the first axis may be the images."""
    shape = dims(value) or []
    if len(shape) < 2 or not isinstance(shape[0], int):
        return True
    return shape[0] == batch if isinstance(batch, int) else batch not in shape[1:]


def _last_computation(value: ir.Value) -> ir.Node | None:
    """Return the node that computes a value, behind a bias or pooling."""
    node = value.producer()
    while node is not None and (
        has(node, Trait.PASSES | Trait.RESHAPES | Trait.POOLS) or node.op_type == "Add"
    ):
        source = next((v for v in node.inputs if v is not None and v.producer()), None)
        node = None if source is None else source.producer()
    return node


def has_unit_length(value: ir.Value) -> bool:
    """Whether a tensor is divided by its own length at last."""
    node = behind(value).producer()
    if node is None:
        return False
    if node.op_type == "LpNormalization":
        return True
    if node.op_type not in ("Div", "Mul") or node.inputs[0] is None or len(node.inputs) < 2:
        return False
    divisor, steps = node.inputs[1], 0
    while divisor is not None and (of := divisor.producer()) is not None and steps < 8:
        if of.op_type in ("ReduceL2", "ReduceSumSquare"):
            return of.inputs[0] is node.inputs[0]
        if of.op_type == "ReduceSum":
            square = of.inputs[0].producer() if of.inputs[0] is not None else None
            return square is not None and node.inputs[0] in square.inputs
        divisor, steps = (of.inputs[0] if of.inputs else None), steps + 1
    return False
