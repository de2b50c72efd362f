"""The N-th best detection of a run: ``box:2``, ``box:person/1``, ``box:@120,80``.

What :mod:`onnxcam.targets.detections` does on the host, with operators: overlapping boxes of one
class are left out by NonMaxSuppression, and what is left is ranked by its score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.surgeon.portable.finish import largest
from onnxcam.surgeon.portable.photograph import Photograph

_FLOAT = ir.DataType.FLOAT
MOST = 300  # detections of an image, as in onnxcam.targets.detections


@dataclass(frozen=True)
class Nth:
    """One detection of a run.

    Attributes:
        index: the class that it must be of; ``None``: any.
        number: which of these, 0 the surest.
        point: column and row that it must hold, of the photograph, or else of the input.
    """

    index: int | None = None
    number: int = 0
    point: tuple[int, int] | None = None

    @property
    def alone(self) -> bool:
        """Whether it is the surest, which no other box suppresses."""
        return not self.number and self.point is None


def above(b: Builder, scores: ir.Value, least: float) -> ir.Value:
    """Return scores above a limit, and 0 for the others."""
    return b.op("Mul", scores, _one(b, b.op("Greater", scores, b.constant(least, _FLOAT))))


def apart(
    b: Builder, scores: ir.Value, boxes: ir.Value, least: float, overlap: float, most: int
) -> ir.Value:
    """Return the scores ``[N, A, C]`` of boxes that no surer one of their class suppresses, else 0.

    Args:
        b: the graph's builder.
        scores: of every box and class.
        boxes: ``[N, A, 4]``, two opposite corners.
        least: scores that are not above it are left out.
        overlap: intersection over union above which the less sure box of two is left out.
        most: boxes of a class.
    """
    classwise = b.op("Transpose", scores, perm=[0, 2, 1])
    limits = (b.ints(most), b.constant(overlap, _FLOAT), b.constant(least, _FLOAT))
    kept = b.op("NonMaxSuppression", boxes, classwise, *limits)  # [S, 3]: image, class, box
    count = b.op("Slice", b.op("Shape", kept), b.ints(0), b.ints(1))
    ones = b.op("ConstantOfShape", count, value=ir.tensor(np.ones(1, np.float32)))
    nothing = ir.tensor(np.zeros(1, np.float32))
    none = b.op("ConstantOfShape", b.op("Shape", classwise), value=nothing)
    hits = b.op("ScatterND", none, kept, ones)
    return b.op("Mul", scores, b.op("Transpose", hits, perm=[0, 2, 1]))


def ranked(b: Builder, scores: ir.Value, number: int) -> tuple[ir.Value, ir.Value]:
    """Return the place of a rank among scores ``[N, X]``, 0 the first, and whether it is there.

    Scores of 0 are not there. Both are ``[N, 1]``, int64 and bool.
    """
    if number == 0:
        place, best = b.op("ArgMax", scores, axis=1, keepdims=1), largest(b, scores, [1])
    else:
        longer = b.op("Pad", scores, b.ints(0, 0, 0, number + 1))  # there may be fewer
        best, place = b.op_many("TopK", [longer, b.ints(number + 1)], 2, axis=1)
        ends = (b.ints(number), b.ints(number + 1), b.ints(1))
        best, place = b.op("Slice", best, *ends), b.op("Slice", place, *ends)
    there = b.op("Greater", best, b.constant(0.0, _FLOAT))
    return b.op("Mul", place, b.op("Cast", there, to=ir.DataType.INT64)), there


def holding(
    b: Builder, boxes: ir.Value, point: tuple[int, int], photograph: Photograph | None
) -> ir.Value:
    """Return 1 for boxes ``[N, A, 4]`` that hold a point of the photograph, ``[N, A]``."""
    if photograph is None:
        x, y = (b.constant(float(n), _FLOAT) for n in point)
    else:
        x, y = photograph.at(*map(float, point))
    at = b.op("Concat", *(b.op("Reshape", v, b.ints(1)) for v in (x, y)), axis=0)
    ends = [b.op("Slice", boxes, b.ints(n), b.ints(n + 2), b.ints(2)) for n in (0, 2)]
    out = _one(b, b.op("Or", b.op("Greater", ends[0], at), b.op("Less", ends[1], at)))
    inside = b.op("Sub", b.constant(1.0, _FLOAT), largest(b, out, [2], keepdims=False))
    return inside if photograph is None else b.op("Mul", inside, photograph.has(*point))


def _one(b: Builder, condition: ir.Value) -> ir.Value:
    return b.op("Cast", condition, to=_FLOAT)
