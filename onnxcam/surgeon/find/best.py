"""Recognise the outputs of detectors that list their best boxes alone, by what these are made of.

As *rows*, one output ``[M, 6]`` or ``[N, M, 6]`` of a box, its score and its class in any order
(Paddle's detectors, RT-DETR); the parts that are joined to it tell which is which. Or as *lists*,
outputs ``[N, M, 4]``, ``[N, M]`` and ``[N, M]`` (TensorFlow's object detection API, RT-DETR,
D-FINE).
"""

from __future__ import annotations

import re

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims, is_float, leads_to
from onnxcam.surgeon.find.joined import Head
from onnxcam.surgeon.plan import DetectorFacts

_BOX, _ROW = 4, 6
_PASSED = ("Squeeze", "Unsqueeze", "Reshape", "Identity", "Flatten")
_MOVE = ("GatherElements", "GatherND", "Cast")
_PICK = ("ArgMax", "TopK", "NonMaxSuppression")
_OF_CLASSES = re.compile(r"class(es)?|labels?|categor(y|ies)")
_OF_SCORES = re.compile(r"scores?|confidences?|conf|prob(s|abilities)?")
_OF_BOXES = re.compile(r"b?box(es)?")
_API = "detection_"  # TensorFlow's object detection API names outputs so
_OF_THE_API = re.compile(r"(num_|raw_)?detection(s|_)")
_GUESS = (
    "Guessed that boxes are left, top, right, bottom: nothing says in which order the model gives "
    "them.\nIf the drawn ones are mirrored at the diagonal, they are top, left, bottom, right; "
    "scores and maps are right all the same."
)


def find_best(graph: ir.Graph) -> Head | None:
    """Return the head of a detector that lists its best boxes, ``None`` where it is no such."""
    found = (_rows(o) for o in graph.outputs if is_float(o))
    return next((h for h in found if h is not None), None) or _lists(graph)


def _rows(output: ir.Value) -> Head | None:
    """Return the head that joined parts are: a box, a whole number, and another number."""
    if (dims(output) or [None])[-1] != _ROW or len(dims(output) or []) not in (2, 3):
        return None
    value: ir.Value | None = output
    node = output.producer()
    while node is not None and node.op_type in _PASSED:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    rank = 0 if value is None else len(dims(value) or [])
    if node is None or node.op_type != "Concat" or rank not in (2, 3):
        return None
    if node.attributes.get_int("axis", 0) % rank != rank - 1:
        return None
    parts = [v for v in node.inputs if v is not None]
    widths = [(dims(v) or [None])[-1] for v in parts]
    if sorted(map(str, widths)) != ["1", "1", str(_BOX)]:
        return None
    boxes = parts[widths.index(_BOX)]
    classes = [v for v in parts if v is not boxes and _is_picked(v)]
    scores = [v for v in parts if v is not boxes and not _is_picked(v)]
    if len(classes) != 1 or len(scores) != 1:
        return None
    return Head(
        scores[0].name or "",
        boxes.name or "",
        reading=DetectorFacts(final=True, given=True, corners=True),
        classes=classes[0].name or "",
        single=len(dims(output) or []) == 2 or _suppressed(output),
        outputs=(output.name or "",),
    )


def _lists(graph: ir.Graph) -> Head | None:
    """Return the head of which one output is boxes, one their scores, and one their classes."""
    for boxes in graph.outputs:
        shape = dims(boxes) or []
        if len(shape) != 3 or shape[2] != _BOX or not is_float(boxes):
            continue
        if not _named(boxes, _OF_BOXES):
            continue
        beside = [o for o in graph.outputs if o is not boxes and _same(dims(o) or [], shape)]
        api = [o for o in beside if (o.name or "").startswith(_API)]
        if (boxes.name or "").startswith(_API):
            beside = api
        classes = [o for o in beside if _named(o, _OF_CLASSES)]
        scores = [o for o in beside if _named(o, _OF_SCORES) and o not in classes and is_float(o)]
        if len(classes) != 1 or len(scores) != 1:
            continue
        reading = DetectorFacts(
            final=True,
            given=True,
            classes=_count(boxes) if api else None,
            corners=True,
            relative=True if api else None,
            first=_first_class(classes[0]),
            guess="" if api or not _suppressed(boxes) else _GUESS,
        )
        names = tuple(o.name or "" for o in (boxes, scores[0], classes[0]))
        others = tuple(o.name or "" for o in graph.outputs if _OF_THE_API.match(o.name or ""))
        return Head(
            names[1],
            names[0],
            reading=reading,
            classes=names[2],
            rows_first=bool(api),
            outputs=names + (others if api else ()),
        )
    return None


def _same(shape: list[int | str | None], boxes: list[int | str | None]) -> bool:
    """Whether an output has one number for each box, as far as the lengths are known."""
    pairs = zip(shape, boxes, strict=False)
    return len(shape) == 2 and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs
    )


def _named(value: ir.Value, pattern: re.Pattern[str]) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", value.name or "").lower())
    return any(pattern.fullmatch(w) for w in words)


def _suppressed(value: ir.Value) -> bool:
    """Whether a NonMaxSuppression is among what a tensor is made of."""
    nodes = (v.producer() for v in leads_to(value))
    return any(n is not None and n.op_type == "NonMaxSuppression" for n in nodes)


def _count(value: ir.Value) -> int | None:
    """Return how many classes are suppressed, together or each by itself; ``None`` if unknown."""
    nodes = dict.fromkeys(n for v in leads_to(value) if (n := v.producer()) is not None)
    scores = [dims(n.inputs[1]) for n in nodes if n.op_type == "NonMaxSuppression" and n.inputs[1]]
    known = [s[1] for s in scores if s is not None and isinstance(s[1], int)]
    return sum(known) if known and len(known) == len(scores) else None


def _is_picked(value: ir.Value) -> bool:
    """Whether a tensor holds whole numbers of what was picked, that were moved and converted."""
    one: ir.Value | None = value
    while one is not None and is_float(one):
        node = one.producer()
        moves = node is not None and (has(node, Trait.MOVES) or node.op_type in _MOVE)
        one = node.inputs[0] if node is not None and moves and node.op_type != "Concat" else None
    if one is None or one.dtype is None or not one.dtype.is_integer():
        return False
    nodes = (v.producer() for v in leads_to(one))
    return any(n is not None and n.op_type in _PICK for n in nodes)


def _first_class(classes: ir.Value) -> int:
    """Return the number of the first class: 1 where 1 is added last, as TensorFlow's API does."""
    node = classes.producer()
    while node is not None and node.op_type in (*_PASSED, "Cast"):
        value = node.inputs[0]
        node = None if value is None else value.producer()
    stored = [constant(v) for v in node.inputs] if node is not None else []
    ones = [a for a in stored if a is not None and a.size == 1 and float(a.reshape(-1)[0]) == 1]
    return int(node is not None and node.op_type == "Add" and bool(ones))
