"""Recognise the outputs of detectors: boxes, and scores of every box and class.

A *joined* head is one tensor, ``[N, A, 4 + C]`` or, with objectness, ``[N, A, 5 + C]``, for ``A``
anchors and ``C`` classes (YOLOv5, YOLOv7, YOLOX), or turned, ``[N, 4 + C, A]`` (YOLOv8, YOLO11);
keypoints, an angle or coefficients of a mask may follow. A head *apart* has boxes ``[N, A, 4]``
and scores ``[N, A, C]`` (SSD, DETR, UltraFace). A *final* one has a few rows of box, score and
class, ``[N, M, 6]`` (YOLOv10); see also :mod:`onnxcam.surgeon.find.best`. Where NonMaxSuppression
ends the graph, what goes into it is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from onnxcam.errors import ScoreError
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, depends_on, dims, is_float, leads_to, names
from onnxcam.model.describe import tensor_facts
from onnxcam.surgeon.find.best import find_best
from onnxcam.surgeon.find.columns import score_columns
from onnxcam.surgeon.find.endings import probabilities_of
from onnxcam.surgeon.find.joined import Head
from onnxcam.surgeon.find.strides import sizes
from onnxcam.surgeon.plan import DetectorFacts, of_images

_LEAST_ANCHORS = 16  # an output of fewer rows is rather something else
_MOST_FINAL = 1000
_BOX, _ROW = 4, 6
_ORDER = (
    "Guessed that '{sizes}' holds the sizes of faces and '{offsets}' the offsets of their centres, "
    "as CenterFace has them, rows before columns.\nIf not, boxes are wrong; scores and maps are "
    "right all the same."
)
_JOINS = ("Concat", "ScatterND")


def find_head(graph: ir.Graph, metadata: Mapping[str, str]) -> Head | None:
    """Return the head of a detector, ``None`` where the outputs are no such.

    Args:
        graph: a prepared graph.
        metadata: the model's; Ultralytics writes the classes' ``names`` and the ``task`` there.
    """
    labels, task = _count(metadata.get("names", "")), metadata.get("task", "")
    outputs = [o for o in graph.outputs if is_float(o)]
    head = (
        find_best(graph)
        or _suppressed(graph)
        or next((h for o in outputs if (h := _joined(o, labels, task)) is not None), None)
        or _apart(outputs, labels)
        or _several(outputs)
        or _centres(outputs)
    )
    return None if head is None else _with_scale(graph, head)


def _with_scale(graph: ir.Graph, head: Head) -> Head:
    """Return a head with the input by which its boxes were divided, as Paddle's are."""
    scale = next((v for v in graph.inputs if of_images(tensor_facts(v)) == "scale"), None)
    boxes = names(graph).get(head.boxes)
    if scale is None or boxes is None or scale not in leads_to(boxes):
        return head
    return replace(head, scale=scale.name or "")


def _count(names_: str) -> int | None:
    """Return how many classes a list or dict of names, as Python writes it, holds."""
    try:
        return len(ast.literal_eval(names_))
    except (ValueError, SyntaxError, TypeError):
        return None


def refused() -> ScoreError:
    """Return why there are no boxes to explain."""
    return ScoreError(
        "the outputs are not recognised as those of a detector: boxes and their scores, joined "
        "[N, A, 4 + C] or [N, 4 + C, A], or apart. Single numbers of any tensor can be explained: "
        "-t 'NAME[29,2]'."
    )


def _suppressed(graph: ir.Graph) -> Head | None:
    """Return what the first NonMaxSuppression reads."""
    for node in graph:
        if node.op_type == "NonMaxSuppression" and len(node.inputs) > 1:
            boxes, scores = node.inputs[:2]
            if boxes is None or scores is None or boxes.name is None or scores.name is None:
                continue
            centred = node.attributes.get_int("center_point_box", 0) == 1
            classes = (dims(scores) or [None, None])[1]
            known = classes if isinstance(classes, int) else None
            reading = DetectorFacts(
                classes=known,
                corners=not centred,
                threshold=_number(node, 4),
                overlap=_number(node, 3),
                most=_number(node, 2),
            )
            return Head(scores.name, boxes.name, True, reading)
    return None


def _number(node: ir.Node, place: int) -> float | None:
    """Return an input that is one stored number."""
    array = constant(node.inputs[place]) if place < len(node.inputs) else None
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def _joined(value: ir.Value, labels: int | None, task: str) -> Head | None:
    """Return the head that one output is."""
    shape, name = dims(value) or [], value.name or ""
    if len(shape) != 3 or task not in ("", "detect", "segment", "pose", "obb"):
        return None
    first, last = shape[1:]
    few = not isinstance(first, int) or 1 < first <= _MOST_FINAL
    more = isinstance(last, int) and last > _ROW and task in ("segment", "pose", "obb")
    if (last == _ROW or more) and few and _picks(value):
        return Head(name, reading=DetectorFacts(final=True, corners=True))
    if isinstance(first, int) and isinstance(last, int):
        turned, numbers = first < last, min(first, last)
        if max(first, last) < _LEAST_ANCHORS:
            return None
    elif isinstance(first, int) or isinstance(last, int):
        turned = isinstance(first, int)
        numbers = first if isinstance(first, int) else last  # type: ignore[assignment]
    else:
        return _of_unknown_lengths(value, labels)
    if numbers <= _BOX or not _has_boxes(value):
        return None
    extra = score_columns(value, numbers) or numbers - _BOX
    if task == "pose":
        return Head(name, turned=turned, reading=DetectorFacts(classes=labels or 1))
    if labels is not None and extra >= labels:
        objectness = not turned and (extra == labels + 1 or task == "segment")
        reading = DetectorFacts(objectness=objectness, classes=labels)
    else:
        objectness = not turned and extra > 1
        reading = DetectorFacts(objectness=objectness, classes=extra - objectness)
    return Head(name, turned=turned, reading=reading)


def _of_unknown_lengths(value: ir.Value, labels: int | None) -> Head | None:
    """Return the head that an output is of which only the run knows the lengths."""
    joins = next((n for n in _moved(value) if n.op_type == "Concat"), None)
    axis = None if joins is None else joins.attributes.get_int("axis", 0) % 3
    if axis not in (1, 2) or not _has_boxes(value):
        return None
    reading = DetectorFacts(objectness=axis == 2, classes=labels)
    return Head(value.name or "", turned=axis == 1, reading=reading)


def _moved(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes behind a value, the last first, as far as they move its numbers."""
    return _walk(value, _is_moved)


def _is_moved(node: ir.Node) -> bool:
    return has(node, Trait.MOVES | Trait.RESHAPES) or node.op_type in ("Cast", *_JOINS)


def _has_boxes(value: ir.Value) -> bool:
    """Whether a tensor joins parts, some of which are squashed, scores, and some not, boxes."""
    behind = list(_moved(value))
    ends = [n for n in behind if not _is_moved(n)]
    squashed = [has(n, Trait.SQUASHES) for n in ends]
    return any(n.op_type in _JOINS for n in behind) and any(squashed) and not all(squashed)


def _picks(value: ir.Value) -> bool:
    """Whether the rows of a tensor were picked as the best: TopK is before them."""
    joins = _walk(value, lambda n: n.op_type not in ("TopK",) and not has(n, Trait.CONVOLUTION))
    return any(n.op_type == "TopK" for n in joins)


def _walk(value: ir.Value, through: Callable[[ir.Node], bool]) -> Iterator[ir.Node]:
    """Yield the nodes behind a value, back through some of them."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        one = waiting.pop()
        node = one.producer()
        if node is None or one in seen:
            continue
        seen.add(one)
        yield node
        if through(node):
            waiting += [v for v in node.inputs if v is not None and constant(v) is None]


def _apart(outputs: list[ir.Value], labels: int | None) -> Head | None:
    """Return the head of which one output is boxes and another scores."""
    three = [(o, dims(o) or []) for o in outputs if len(dims(o) or []) == 3]
    boxes = [(o, s) for o, s in three if s[2] == _BOX and not _are_scores(o)]
    for box, s in boxes:
        for score, t in three:
            same = s[1] == t[1] or not (isinstance(s[1], int) and isinstance(t[1], int))
            a, c = s[1], t[1]
            if isinstance(a, int) and isinstance(c, int) and t[2] == a != c and a >= _LEAST_ANCHORS:
                return Head(score.name or "", box.name or "", True, DetectorFacts(classes=c))
            if score is box or not same or not isinstance(t[2], int):
                continue
            if isinstance(s[1], int) and s[1] < _LEAST_ANCHORS:
                continue
            named = (score.name or "").lower()
            if t[2] != _BOX or "score" in named or "logit" in named or labels == t[2]:
                reading = DetectorFacts(classes=t[2])
                return Head(score.name or "", box.name or "", reading=reading)
    return None


def _are_scores(value: ir.Value) -> bool:
    """Whether an output of four numbers a row holds scores of four classes."""
    node = value.producer()
    shares = node is not None and node.op_type in ("Softmax", "LogSoftmax")
    return shares or "score" in (value.name or "").lower()


def _several(outputs: list[ir.Value]) -> Head | None:
    """Return the head with outputs of its own a scale: one score a box, and box and keypoints."""
    shapes = {o: dims(o) or [] for o in outputs}
    scores = [o for o in outputs if len(shapes[o]) == 3 and shapes[o][2] == 1]
    pairs = []
    for score in scores:
        count = shapes[score][1]
        boxes = [
            o
            for o in outputs
            if len(shapes[o]) == 3
            and shapes[o][1] == count
            and isinstance(shapes[o][2], int)
            and shapes[o][2] >= _BOX  # type: ignore[operator]
        ]
        if len(boxes) != 1 or not isinstance(count, int) or count < _LEAST_ANCHORS:
            return None
        pairs.append((score.name or "", boxes[0].name or ""))
    if not pairs or 2 * len(pairs) != len(outputs):
        return None
    reading = DetectorFacts(classes=1, offsets=len(pairs) > 1)
    return Head(*pairs[0], reading=reading, more=tuple(pairs[1:]))


def _centres(outputs: list[ir.Value]) -> Head | None:
    """Return the head of maps of centres, sizes, offsets and five landmarks, as CenterFace has."""
    maps = [o for o in outputs if len(dims(o) or []) == 4]
    channels = [(dims(o) or [])[1] for o in maps]
    if sorted(map(str, channels)) != ["1", "10", "2", "2"] or len(maps) != len(outputs):
        return None
    heat = maps[channels.index(1)]
    if len({tuple((dims(o) or [])[2:]) for o in maps}) > 1 or probabilities_of(heat) is None:
        return None
    first, second = (o for o, n in zip(maps, channels, strict=True) if n == 2)
    named = ["offset" in (o.name or "").lower() for o in (first, second)]
    extents, offsets = (second, first) if named == [True, False] else (first, second)
    guess = "" if any(named) else _ORDER.format(sizes=extents.name, offsets=offsets.name)
    return Head(
        heat.name or "",
        reading=DetectorFacts(classes=1, offsets=True, guess=guess),
        centres=(extents.name or "", offsets.name or ""),
    )


def head_layers(graph: ir.Graph, image: ir.Value, head: Head) -> list[ir.Value]:
    """Return the maps that the head reads, one a scale, the finest first; ``[]`` if unknown.

    Convolutions after which no other lies are the head's last; of those of one size the maps are
    what all of them are made of, in the same size. Between these and the head's end lies a
    convolution that sees more than one place, if there is any: else all that a map could tell is
    the place itself.
    """
    known = names(graph)
    ends = {known[n] for n in head.tensors}
    path = depends_on(graph, {image}) & set().union(*(leads_to(e) for e in ends))
    convolutions = [n for n in graph if has(n, Trait.CONVOLUTION) and n.outputs[0] in path]
    maps = {n.outputs[0] for n in convolutions if _reads_maps(n, image)}
    last = [m for m in maps if not (depends_on(graph, {m}) & (maps - {m}) & path)]
    found = []
    measured = sizes(graph, image)
    for size in dict.fromkeys(measured.get(m) for m in last):
        mine = [m for m in last if measured.get(m) == size]
        behind = [leads_to(m) for m in mine]
        common = set.intersection(*behind) & path - set(mine)
        same = [n.outputs[0] for n in graph if n.outputs and n.outputs[0] in common]
        same = [v for v in same if measured.get(v) == size]
        read = [v for v in same if not _finishing(v, common)]
        # Of a dynamically quantized map both forms are read; gradients are of the one before.
        read = [v for v in read if v.dtype is None or v.dtype.is_floating_point()] or read
        if size is not None and read:
            every = set(mine).union(*behind)
            wide = [n for n in convolutions if _is_wide(n) and n.outputs[0] in every]
            wide = [n for n in wide if measured.get(n.outputs[0]) == size]
            found.append(_before_one(read, wide, graph) or read[-1])
    order = {n.outputs[0]: i for i, n in enumerate(graph) if n.outputs}
    return sorted(found, key=lambda v: order[v])


def _is_wide(node: ir.Node) -> bool:
    """Whether a convolution's kernel sees more than one place."""
    kernel = dims(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return any(d != 1 for d in (kernel or [])[2:])


def _before_one(
    maps: list[ir.Value], convolutions: list[ir.Node], graph: ir.Graph
) -> ir.Value | None:
    """Return the last of some maps that one of some convolutions comes after."""
    for value in reversed(maps):
        after = depends_on(graph, {value})
        if any(n.inputs[0] is value or n.inputs[0] in after for n in convolutions):
            return value
    return None


def _reads_maps(node: ir.Node, image: ir.Value) -> bool:
    """Whether a convolution reads maps, not numbers that were laid out anew (a DFL's)."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    while producer is not None and not has(producer, Trait.CONVOLUTION):
        if has(producer, Trait.RESHAPES) or producer.op_type == "Transpose":
            return False
        value = next((v for v in producer.inputs if v is not None and constant(v) is None), None)
        producer = None if value is None else value.producer()
    return True


def _finishing(value: ir.Value, among: set[ir.Value]) -> bool:
    """Whether maps are finished by an activation that every reader of theirs belongs to."""
    readers = list(value.consumers())
    return bool(readers) and all(
        has(n, Trait.FINISHES) and n.outputs and n.outputs[0] in among for n in readers
    )
