"""Append what exporters write after a detector's boxes and scores: suppression, and the best."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Graph:
    """Nodes appended to a model, whose outputs are replaced."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.count = model.graph, 0

    def stored(self, array) -> str:
        self.count += 1
        name = f"stored.{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes):
        self.count += 1
        names = [name or f"{kind}.{self.count}", *(f"{kind}.{self.count}.{n}" for n in (1,))]
        node = helper.make_node(kind, inputs, names[:outputs], **attributes)
        self.graph.node.append(node)
        return names[0] if outputs == 1 else names[:outputs]

    def ints(self, *values: int) -> str:
        return self.stored(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        return self.stored(np.array(values, np.float32))

    def end(self, **outputs: tuple[int, list[int | str]]) -> None:
        del self.graph.output[:]
        for name, (kind, shape) in outputs.items():
            self.graph.output.append(helper.make_tensor_value_info(name, kind, shape))


def paddle_rows(
    model: onnx.ModelProto,
    boxes: str,
    scores: str,
    anchors: int,
    *,
    least: float = 0.01,
    keep: int = 100,
    normalized: bool = True,
    background: int = -1,
) -> None:
    """What Paddle2ONNX writes for ``multiclass_nms3``: rows of class, score, box; and their count.

    Args:
        model: it is changed; of opset 11.
        boxes: corners ``[1, A, 4]``.
        scores: ``[1, C, A]``.
        anchors: how many there are.
        least: the score below which a box is left out.
        keep: rows at most.
        normalized: else a box of right 9 and left 0 is ten pixels wide.
        background: the class that is left out, if it is not negative.
    """
    g = _Graph(model)
    read = boxes
    if not normalized:
        edges = [f"edge.{n}" for n in range(4)]
        g.graph.node.append(helper.make_node("Split", [boxes], edges, axis=2, split=[1] * 4))
        far = [g.op("Add", e, g.floats(1)) for e in edges[2:]]
        read = g.op("Concat", *edges[:2], *far, axis=2)
    limits = (g.ints(1000), g.floats(0.6), g.floats(least))
    chosen = g.op("NonMaxSuppression", read, scores, *limits)
    classes = g.op("Gather", chosen, g.ints(1), axis=1)
    places = g.op("Gather", chosen, g.ints(2), axis=1)
    if background >= 0:
        flat = g.op("Squeeze", classes, axes=[1])
        if background:
            flat = g.op("Sub", flat, g.ints(background))
        kept = g.op("Reshape", g.op("NonZero", flat), g.ints(-1))
        classes = g.op("Gather", classes, kept, axis=0)
        places = g.op("Gather", places, kept, axis=0)
    flat = g.op("Reshape", scores, g.ints(-1))
    index = g.op("Add", g.op("Mul", classes, g.ints(anchors)), places)
    found = g.op("Gather", flat, g.op("Reshape", index, g.ints(-1)), axis=0)
    count = g.op("Slice", g.op("Shape", found), g.ints(0), g.ints(1), g.ints(0))
    most = g.op("ReduceMin", g.op("Concat", count, g.ints(keep), axis=0), axes=[0], keepdims=1)
    _, best = g.op("TopK", found, most, outputs=2)
    top = g.op("Gather", found, best, axis=0)
    row = g.op("Reshape", g.op("Gather", places, best, axis=0), g.ints(-1))
    picked = g.op("Gather", boxes, row, axis=1)
    whole = g.op("Cast", g.op("Gather", classes, best, axis=0), to=TensorProto.FLOAT)
    columns = [g.op("Reshape", v, g.ints(1, -1, 1)) for v in (whole, top)]
    rows = g.op("Concat", *columns, picked, axis=2)
    g.op("Squeeze", rows, axes=[0], name="multiclass_nms3_0.tmp_0")
    shape = g.op("Shape", "multiclass_nms3_0.tmp_0")
    counted = g.op("Slice", shape, g.ints(0), g.ints(1), g.ints(0))
    g.op("Cast", counted, to=TensorProto.INT32, name="multiclass_nms3_0.tmp_2")
    outputs = {
        "multiclass_nms3_0.tmp_0": (TensorProto.FLOAT, ["M", 6]),
        "multiclass_nms3_0.tmp_2": (TensorProto.INT32, ["N"]),
    }
    g.end(**outputs)


def tensorflow_lists(
    model: onnx.ModelProto, boxes: str, scores: str, classes: int, *, apart: bool, most: int = 20
) -> None:
    """What tf2onnx makes of TensorFlow's object detection API: lists of the best, filled up.

    Args:
        model: it is changed; of opset 11.
        boxes: top, left, bottom, right ``[1, A, 4]`` in parts of the image.
        scores: ``[1, A, C]``.
        classes: how many there are.
        apart: a NonMaxSuppression a class, as the API writes it; else one of all.
        most: rows of the lists.
    """
    g = _Graph(model)
    limits = (g.ints(most), g.floats(0.6), g.floats(1e-8))
    flat = g.op("Squeeze", boxes, axes=[0])
    found, places, kinds = [], [], []
    for n in range(classes) if apart else [0]:
        if apart:
            one = g.op("Slice", scores, g.ints(n), g.ints(n + 1), g.ints(2))
            turned = g.op("Transpose", one, perm=[0, 2, 1])
        else:
            turned = g.op("Transpose", scores, perm=[0, 2, 1])
        chosen = g.op("NonMaxSuppression", boxes, turned, *limits)
        place = g.op("Squeeze", g.op("Slice", chosen, g.ints(2), g.ints(3), g.ints(1)), axes=[1])
        if apart:
            numbers = g.op("Gather", g.op("Squeeze", one, axes=[0, 2]), place, axis=0)
            zeros = g.op("Mul", numbers, g.floats(0))
            kinds.append(g.op("Add", zeros, g.floats(n)))
        else:
            pairs = g.op("Slice", chosen, g.ints(1), g.ints(3), g.ints(1))
            numbers = g.op("GatherND", g.op("Squeeze", turned, axes=[0]), pairs)
            whole = g.op(
                "Squeeze", g.op("Slice", chosen, g.ints(1), g.ints(2), g.ints(1)), axes=[1]
            )
            kinds.append(g.op("Cast", whole, to=TensorProto.FLOAT))
        found.append(numbers)
        places.append(place)
    numbers, place, kind = (
        g.op("Concat", *v, axis=0) if len(v) > 1 else v[0] for v in (found, places, kinds)
    )
    count = g.op("Concat", g.op("Shape", numbers), g.ints(most), axis=0)
    _, best = g.op("TopK", numbers, g.op("ReduceMin", count, axes=[0], keepdims=1), outputs=2)
    left = g.op("Sub", g.ints(most), g.op("Shape", best))

    def filled(value: str, columns: list[int], name: str = "") -> str:
        zeros = g.op(
            "Expand",
            g.floats(0),
            g.op("Concat", left, g.ints(*columns), axis=0) if columns else left,
        )
        whole = g.op("Concat", g.op("Gather", value, best, axis=0), zeros, axis=0)
        return g.op("Unsqueeze", whole, axes=[0], **({"name": name} if name else {}))

    filled(g.op("Gather", flat, place, axis=0), [4], "detection_boxes")
    filled(numbers, [], "detection_scores")
    g.op("Add", filled(kind, []), g.floats(1), name="detection_classes")
    g.op("Cast", g.op("Shape", best), to=TensorProto.FLOAT, name="num_detections")
    lists = {n: (TensorProto.FLOAT, [1, most]) for n in ("detection_scores", "detection_classes")}
    g.end(
        detection_boxes=(TensorProto.FLOAT, [1, most, 4]),
        **lists,
        num_detections=(TensorProto.FLOAT, [1]),
    )
