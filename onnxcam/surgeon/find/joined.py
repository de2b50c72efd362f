"""A detector's outputs as one tensor: boxes and scores, the scores before they are squashed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.values import dims, names
from onnxcam.surgeon.find.logits import unsquashed
from onnxcam.surgeon.plan import DetectorFacts
from onnxcam.surgeon.words import DETECTIONS

_BOX = 4


@dataclass(frozen=True)
class Head:
    """What a detector gives, by the names of tensors.

    Attributes:
        scores: the joined tensor, or the scores.
        boxes: the boxes, ``""`` where they are joined.
        turned: whether the scores' anchors are the last axis.
        reading: how the numbers are read, as far as the graph tells it.
        more: scores and boxes of further scales, where each has outputs of its own.
        classes: the class of each box, where the model gives the best boxes alone: scores and
            classes are then ``[N, M]`` or ``[N, M, 1]``.
        rows_first: whether boxes are top, left, bottom, right.
        scale: the input by which boxes were divided, rows and columns ``[N, 2]``.
        single: whether boxes, scores and classes have no axis of images.
        outputs: the outputs that list the best boxes.
        centres: maps of sizes and offsets ``[N, 2, H, W]``, rows before columns, where the scores
            are maps ``[N, 1, H, W]`` of the boxes' centres.
    """

    scores: str
    boxes: str = ""
    turned: bool = False
    reading: DetectorFacts = field(default_factory=DetectorFacts)
    more: tuple[tuple[str, str], ...] = ()
    classes: str = ""
    rows_first: bool = False
    scale: str = ""
    single: bool = False
    outputs: tuple[str, ...] = ()
    centres: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all tensors."""
        pairs = ((self.scores, self.boxes), *self.more, (self.classes, *self.centres))
        return tuple(n for pair in pairs for n in pair if n)


def joined(graph: ir.Graph, head: Head, opset: int) -> tuple[ir.Value, DetectorFacts]:
    """Write boxes and scores as one tensor, ``[N, A, 4 + S]``, scores before they are squashed."""
    known, kinds = names(graph), dict[str, None]()
    if head.classes:
        return _listed(graph, head, opset)
    if head.centres:
        return _centred(graph, head, opset)
    pairs = ((head.scores, head.boxes), *head.more)
    logits = [unsquashed(graph, known[scores], opset) for scores, _ in pairs]
    b, scales = Builder(graph, opset), []  # a builder goes on from the names that there are
    for (scores, boxes), before in zip(pairs, logits, strict=True):
        if not head.reading.final or _score_changed(known[scores], before.value):
            kinds |= dict.fromkeys(before.kinds)
        placed = None if not boxes else _in_the_input(b, known[boxes], known.get(head.scale))
        scales.append(value := _with_boxes(b, before.value, placed, head.turned))
    if len(scales) > 1:
        value = b.op("Concat", *scales, axis=1)
        shape = dims(scales[0]) or [None] * 3
        value.shape, value.type = ir.Shape([shape[0], None, shape[2]]), scales[0].type
    else:
        value = shaped(b.op("Identity", value), value)  # a tensor with a name of its own
    value.name = DETECTIONS
    return value, replace(head.reading, squashed=next(iter(kinds), ""))


def _listed(graph: ir.Graph, head: Head, opset: int) -> tuple[ir.Value, DetectorFacts]:
    """Write the best boxes as rows of box, score before it is squashed, class, and score.

    The shape is ``[N, M, 7]``, or ``[M, 7]`` where there is no axis of images. The last number is
    what the model gives: rows that only fill up, of score 0, have no number before that.
    """
    known = names(graph)
    boxes, scores, classes = (known[n] for n in (head.boxes, head.scores, head.classes))
    before = unsquashed(graph, scores, opset)
    b = Builder(graph, opset)
    first = [] if head.single else [0]
    sizes = [] if head.single else [(dims(boxes) or [None])[0]]

    def columns(value: ir.Value, count: int) -> ir.Value:
        """Return so many numbers a box."""
        if value.dtype is not boxes.dtype:
            value = b.op("Cast", value, to=boxes.dtype)
        value = b.op("Reshape", value, b.ints(*first, -1, count))
        value.shape, value.type = ir.Shape([*sizes, None, count]), boxes.type
        return value

    rows = columns(boxes, _BOX)
    if head.rows_first:
        rows = shaped(b.op("Gather", rows, b.ints(1, 0, 3, 2), axis=-1), rows)
    rows = _in_the_input(b, rows, known.get(head.scale))
    parts = [rows, *(columns(v, 1) for v in (before.value, classes, scores))]
    value = b.op("Concat", *parts, axis=-1)
    value.shape, value.type = ir.Shape([*sizes, None, _BOX + 3]), boxes.type
    value.name = DETECTIONS
    return value, replace(head.reading, squashed=next(iter(before.kinds), ""))


def _centred(graph: ir.Graph, head: Head, opset: int) -> tuple[ir.Value, DetectorFacts]:
    """Write maps of centres, logarithms of sizes and offsets as boxes of cells, ``[N, H W, 5]``.

    A box's centre is that of its cell plus the offset (CenterFace, Xu et al. 2019).
    """
    known = names(graph)
    before = unsquashed(graph, known[head.scores], opset)
    sizes, offsets = (known[n] for n in head.centres)
    b, kind = Builder(graph, opset), sizes.dtype or ir.DataType.FLOAT

    def turned(maps: ir.Value) -> ir.Value:
        """Return the maps of columns before those of rows."""
        return shaped(b.op("Gather", maps, b.ints(1, 0), axis=1), maps)

    middle = shaped(b.op("Add", turned(offsets), b.constant(0.5, kind)), offsets)
    maps = b.op("Concat", middle, turned(sizes), before.value, axis=1)
    shape = dims(sizes) or [None] * 4
    maps.shape, maps.type = ir.Shape([shape[0], 5, *shape[2:]]), sizes.type
    rows = b.op("Reshape", maps, b.ints(0, 5, -1))
    rows.shape, rows.type = ir.Shape([shape[0], 5, None]), sizes.type
    value = b.op("Transpose", rows, perm=[0, 2, 1])
    value.shape, value.type = ir.Shape([shape[0], None, 5]), sizes.type
    value.name = DETECTIONS
    return value, replace(head.reading, squashed=next(iter(before.kinds), ""))


def _in_the_input(b: Builder, boxes: ir.Value, scale: ir.Value | None) -> ir.Value:
    """Return boxes ``[N, A, 4]`` or ``[M, 4]`` that were divided by a scale, in input pixels."""
    if scale is None:
        return boxes
    sizes = [(dims(scale) or [None])[0], *[1] * (len(dims(boxes) or []) - 2), _BOX]
    whole = b.op("Gather", scale, b.ints(1, 0, 1, 0), axis=1)  # it is that of rows, of columns
    whole = b.op("Reshape", whole, b.ints(0, *[1] * (len(sizes) - 2), _BOX))
    whole.shape, whole.type = ir.Shape(sizes), scale.type
    return shaped(b.op("Mul", boxes, whole), boxes)


def _with_boxes(b: Builder, value: ir.Value, boxes: ir.Value | None, turned: bool) -> ir.Value:
    """Return scores with anchors first, ``[N, A, S]``, after their boxes where these are apart."""
    shape, kind = dims(value) or [None] * 3, value.type
    if turned:
        value = b.op("Transpose", value, perm=[0, 2, 1])
        shape = [shape[0], shape[2], shape[1]]
        value.shape, value.type = ir.Shape(shape), kind
    if boxes is None:
        return value
    if (dims(boxes) or [_BOX])[-1] != _BOX:  # keypoints follow
        sizes, kind = dims(boxes) or [None] * 3, boxes.type
        boxes = b.op("Slice", boxes, b.ints(0), b.ints(_BOX), b.ints(-1))
        boxes.shape, boxes.type = ir.Shape([*sizes[:2], _BOX]), kind
    value = b.op("Concat", boxes, value, axis=-1)
    numbers = shape[2] + _BOX if isinstance(shape[2], int) else None
    value.shape, value.type = ir.Shape([shape[0], shape[1], numbers]), kind
    return value


def _score_changed(old: ir.Value, new: ir.Value) -> bool:
    """Whether the scores among final rows, the second part of what is joined, are unsquashed."""
    before, after = old.producer(), new.producer()
    if before is None or after is None or before is after:
        return False
    return before.op_type != "Concat" or before.inputs[1] is not after.inputs[1]
