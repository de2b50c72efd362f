"""A detector's rows as targets: which one is told by each run, or the surest of a class.

What is explained is what :mod:`onnxcam.targets.boxes` explains: the logit of the row's class, with
objectness log p(object) + log p(class). How the numbers are read, where the model does not say it,
the run's numbers decide, as in :mod:`onnxcam.targets.detections`. Rows that a run is told are taken
as they are; of those that are fixed, overlapping boxes are left out (:mod:`.nth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxcam.errors import TargetError
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.plan import WEIGHTS, DetectorFacts
from onnxcam.surgeon.portable.corners import Corners
from onnxcam.surgeon.portable.finish import largest
from onnxcam.surgeon.portable.named import TARGETS, add_numbers, becomes, told_input
from onnxcam.surgeon.portable.nth import MOST, Nth, above, apart, holding, ranked
from onnxcam.surgeon.portable.photograph import Photograph
from onnxcam.surgeon.seeds.classes import add_output
from onnxcam.surgeon.seeds.weights import WeightSeeds

CLASSES = f"{PREFIX}classes"  # output: int64 [N, A], the best class of every row
CONFIDENCES = f"{PREFIX}confidences"  # output: float [N, A]
BOXES = f"{PREFIX}boxes"  # output: float [N, A, 4]
_FLOAT, _INT = ir.DataType.FLOAT, ir.DataType.INT64
# See onnxcam.targets.detections.
_MANY, _LEAST, _THRESHOLD, _OVERLAP = 0.5, 1e-12, 0.25, 0.5

_SUREST = (
    "box:0 and box:LABEL can be fixed, the surest; without -t the input 'target' takes any row."
)


@dataclass(frozen=True)
class AnyRow:
    """Rows that each run is told, -1 for the surest; ``required`` as of classes."""

    required: bool = False


@dataclass(frozen=True)
class TheseBoxes:
    """Detections that are fixed. One that is not there has row -1, a number of 0 and no map."""

    wanted: tuple[Nth, ...]


class PortableRows(WeightSeeds):
    """The seeds of a detector's rows, ``[N, A, 4 + S]``: a box, then scores."""

    def __init__(
        self,
        b: Builder,
        tensor: ir.Value,
        reading: DetectorFacts,
        aim: AnyRow | TheseBoxes,
        size: tuple[int, int] | None,
        photograph: Photograph | None = None,
    ) -> None:
        """Take the tensor, how it is read, and width and height of the input, if they are known.

        Points are those of the photograph where there is one.

        Attributes:
            rows: that are explained, ``[T, N]``.
            kinds: their classes, ``[T, N]``.
            there: whether there is such a row, bool ``[T, N]``; ``None``: in any case.
        """
        super().__init__(b, tensor, "T" if isinstance(aim, AnyRow) else len(aim.wanted))
        self.reading, self.width = reading, int((dims(tensor) or [])[-1] or 0)
        self.size, self.values = size, b.op("Cast", tensor, to=_FLOAT)
        self.photograph = photograph
        self.there: ir.Value | None = None
        if isinstance(aim, AnyRow):
            self.rows = self._told(aim.required)
            self.kinds = b.turned(self._class_of(b.turned(self.rows)))
        else:
            found = [self._found(nth) for nth in aim.wanted]
            self.rows, self.kinds, self.there = (
                self._joined(one) for one in zip(*found, strict=True)
            )
        weights = b.op("Cast", self._weights, to=tensor.dtype)
        T = self.T if isinstance(self.T, int) else None
        weights.shape, weights.type = ir.Shape([T, *(dims(tensor) or [])]), tensor.type
        becomes(b, WEIGHTS, weights)
        self.weights = weights

    def _columns(self, first: int, end: int) -> ir.Value:
        """Return columns of every row, ``[N, A, end - first]``."""
        ints = self.b.ints
        return self.b.op("Slice", self.values, ints(first), ints(end), ints(2))

    @cached_property
    def _first(self) -> int:
        return 4 + self.reading.objectness

    @cached_property
    def _end(self) -> int:
        known = self.reading.classes
        return self.width if known is None else self._first + known

    @cached_property
    def _squashed(self) -> ir.Value | None:
        """Whether scores are probabilities already, bool ``[N, 1, 1]``; ``None``: they are not."""
        b, reading = self.b, self.reading
        if reading.squashed:
            return None
        scores = self._columns(4, 5 if reading.final else self.width)
        half = b.constant(0.5, _FLOAT)
        away = b.op("Greater", b.op("Abs", b.op("Sub", scores, half)), half)
        outside = largest(b, b.op("Cast", away, to=_FLOAT), [1, 2])
        return b.op("Not", b.op("Cast", outside, to=ir.DataType.BOOL))

    def _probability(self, x: ir.Value) -> ir.Value:
        """Return what Sigmoid makes of numbers ``[N, A, C]``, or those that it made already."""
        p = self.b.op("Sigmoid", x)
        return p if self._squashed is None else self.b.op("Where", self._squashed, x, p)

    @cached_property
    def _shares(self) -> ir.Value:
        """The probability of every class, ``[N, A, C]``."""
        b, scores = self.b, self._columns(self._first, self._end)
        kind, count = self.reading.squashed.removeprefix("Log"), self._end - self._first
        if kind == "Softmax":
            return self._foreground(b.op("Softmax", scores, axis=2), count)
        shares = self._probability(scores)
        if not kind and count > 1 and not self.reading.objectness:
            # DETR has a last class for nothing, which most of its boxes are.
            best = b.op("ArgMax", scores, axis=2, keepdims=1)
            last = b.op("Cast", b.op("Equal", best, b.ints(count - 1)), to=_FLOAT)
            most = b.op("Greater", b.mean(last, [1, 2], keepdims=True), b.constant(_MANY, _FLOAT))
            assert self._squashed is not None
            most = b.op("And", most, b.op("Not", self._squashed))
            soft = self._foreground(b.op("Softmax", scores, axis=2), count)
            shares = b.op("Where", most, soft, shares)
        if self.reading.objectness:
            shares = b.op("Mul", shares, self._probability(self._columns(4, 5)))
        return shares

    def _foreground(self, shares: ir.Value, count: int) -> ir.Value:
        """Return shares without the class that stands for nothing: the first or the last."""
        b = self.b
        best = b.op("ArgMax", shares, axis=2, keepdims=1)
        often = [
            b.sum(b.op("Cast", b.op("Equal", best, b.ints(c)), to=_FLOAT), [1, 2], keepdims=True)
            for c in (0, count - 1)
        ]
        first = b.op("Not", b.op("Less", *often))
        kept = np.ones((2, 1, 1, count), np.float32)
        kept[0, ..., 0] = kept[1, ..., -1] = 0
        return b.op("Mul", shares, b.op("Where", first, b.constant(kept[0]), b.constant(kept[1])))

    @cached_property
    def confidences(self) -> ir.Value:
        """The probability of every row, ``[N, A]``."""
        b = self.b
        if self.reading.given:
            return b.op("Squeeze", self._columns(6, 7), b.ints(2))
        if self.reading.final:
            return b.op("Squeeze", self._probability(self._columns(4, 5)), b.ints(2))
        return largest(b, self._shares, [2], keepdims=False)

    @cached_property
    def classes(self) -> ir.Value:
        """The class of every row, int64 ``[N, A]``."""
        b = self.b
        if self.reading.final:
            return b.op("Squeeze", b.op("Cast", self._columns(5, 6), to=_INT), b.ints(2))
        return b.op("ArgMax", self._shares, axis=2, keepdims=0)

    def _told(self, required: bool) -> ir.Value:
        """Return the rows of the input, ``[T, N]``."""
        b = self.b
        told = told_input(b, required, (dims(self.tensor) or [None])[0])
        surest = b.op("ArgMax", self.confidences, axis=1, keepdims=1)
        return b.turned(b.op("Where", b.op("Less", told, b.ints(0)), surest, told))

    def _joined(self, parts: tuple[ir.Value, ...]) -> ir.Value:
        """Return what is ``[N, 1]`` of every target as ``[T, N]``."""
        whole = parts[0] if len(parts) == 1 else self.b.op("Concat", *parts, axis=1)
        return self.b.turned(whole)

    def _class_of(self, rows: ir.Value) -> ir.Value:
        """Return the class of rows ``[N, T]``."""
        index = self.b.op("Unsqueeze", rows, self.b.ints(2))
        return self.b.op("GatherND", self.classes, index, batch_dims=1)

    def _found(self, nth: Nth) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return row and class of a detection, and whether it is there, all ``[N, 1]``."""
        b, index, count = self.b, nth.index, self._end - self._first
        if index is not None and not self.reading.final and not 0 <= index < count:
            raise TargetError(
                f"class {index} is out of range: the detector's classes count from 0 to "
                f"{count - 1}."
            )
        each = self.reading.most is not None  # its own suppression takes each class by itself
        if self.reading.final or (nth.alone and not each):
            sure = above(b, self.confidences, self._least)
            if index is not None:
                mine = b.op("Equal", self.classes, b.ints(index))
                sure = b.op("Mul", sure, b.op("Cast", mine, to=_FLOAT))
        else:
            sure = above(b, self._pairs, self._least) if nth.alone else self._apart
            if index is not None:
                sure = b.op("Slice", sure, b.ints(index), b.ints(index + 1), b.ints(2))
                sure = b.op("Squeeze", sure, b.ints(2))
            elif not each:
                sure = largest(b, sure, [2], keepdims=False)
        flat = each and index is None and not self.reading.final
        if nth.point is not None:
            boxes = self._placed()
            if boxes is None:
                raise TargetError(
                    f"where the detector's boxes lie is not in the file, so none can be told by a "
                    f"point. {_SUREST}"
                )
            inside = holding(b, boxes, nth.point, self.photograph)
            sure = b.op("Mul", sure, b.op("Unsqueeze", inside, b.ints(2)) if flat else inside)
        place, there = ranked(b, b.op("Reshape", sure, b.ints(0, -1)) if flat else sure, nth.number)
        if flat:
            return b.op("Div", place, b.ints(count)), b.op("Mod", place, b.ints(count)), there
        if index is None:
            return place, self._class_of(place), there
        return place, b.op("Add", b.op("Mul", place, b.ints(0)), b.ints(index)), there

    @property
    def _least(self) -> float:
        """What detections score above."""
        return _THRESHOLD if self.reading.threshold is None else self.reading.threshold

    @cached_property
    def _pairs(self) -> ir.Value:
        """The scores that a row has in classes which it may be of, ``[N, A, C]``, else 0."""
        b, shares = self.b, self._shares
        if self.reading.most is not None:
            return shares
        count, pair = b.constant(np.int64(self._end - self._first)), b.constant([0.0, 1.0], _FLOAT)
        return b.op("Mul", shares, b.op("OneHot", self.classes, count, pair, axis=-1))

    def _placed(self) -> ir.Value | None:
        """Return :attr:`boxes`; refuse where a run's size decides them."""
        if self.size is None:
            raise TargetError(
                "where boxes lie follows from the input's size, which only a run tells, and so "
                f"which ones overlap or hold a point. {_SUREST}"
            )
        return self.boxes

    @cached_property
    def _apart(self) -> ir.Value:
        """The scores of detections, ``[N, A, C]``, else 0."""
        facts, boxes = self.reading, self._placed()
        if boxes is None:
            return above(self.b, self._pairs, self._least)
        overlap = _OVERLAP if facts.overlap is None else facts.overlap
        most = MOST if facts.most is None else int(min(facts.most, MOST))
        return apart(self.b, self._pairs, boxes, self._least, overlap, most)

    @cached_property
    def _row(self) -> ir.Value:
        """1 in the explained rows, ``[T, N, A, 1]``."""
        b = self.b
        count = b.op("Gather", b.op("Shape", self.values), b.constant(np.int64(1)), axis=0)
        hot = b.op("OneHot", self.rows, count, b.constant(np.array([0, 1]), _FLOAT), axis=-1)
        hot = b.op("Unsqueeze", hot, b.ints(3))
        if self.there is None:
            return hot
        there = b.op("Unsqueeze", b.op("Cast", self.there, to=_FLOAT), b.ints(2, 3))
        return b.op("Mul", hot, there)

    @cached_property
    def _class(self) -> ir.Value:
        """1 in the column of each target's class, ``[T, N, 1, 4 + S]``."""
        b = self.b
        if self.reading.final:
            column = np.zeros((1, 1, 1, self.width), np.float32)
            column[..., 4] = 1
            return b.constant(column)
        at = b.op("Add", self.kinds, b.ints(self._first))
        pair = b.constant(np.array([0, 1]), _FLOAT)
        hot = b.op("OneHot", at, b.constant(np.int64(self.width)), pair, axis=-1)
        return b.op("Unsqueeze", hot, b.ints(2))

    @cached_property
    def _columns_taken(self) -> ir.Value:
        """1 in the columns that the number is made of, ``[T, N, 1, 4 + S]``."""
        if not self.reading.objectness:
            return self._class
        column = np.zeros((1, 1, 1, self.width), np.float32)
        column[..., 4] = 1
        return self.b.op("Add", self._class, self.b.constant(column))

    @cached_property
    def _weights(self) -> ir.Value:
        """The number's derivative, ``[T, N, A, 4 + S]``."""
        b, taken = self.b, self._columns_taken
        if self.reading.objectness:
            slope = b.op("Sub", b.constant(1.0, _FLOAT), b.op("Sigmoid", self.values))
            if self._squashed is not None:
                least = b.op("Max", self.values, b.constant(_LEAST, _FLOAT))
                slope = b.op("Where", self._squashed, b.op("Reciprocal", least), slope)
            taken = b.op("Mul", taken, slope)
        return b.op("Mul", self._row, taken)

    @property
    def value(self) -> ir.Value:
        """The explained numbers, ``[T, N]``."""
        b, numbers = self.b, self.values
        if self.reading.objectness:
            # log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
            tail = b.op(
                "Log",
                b.op(
                    "Add", b.op("Exp", b.op("Neg", b.op("Abs", numbers))), b.constant(1.0, _FLOAT)
                ),
            )
            log_p = b.op("Sub", b.op("Min", numbers, b.constant(0.0, _FLOAT)), tail)
            if self._squashed is not None:
                least = b.op("Max", numbers, b.constant(_LEAST, _FLOAT))
                log_p = b.op("Where", self._squashed, b.op("Log", least), log_p)
            numbers = log_p
        taken = b.op("Mul", self._row, self._columns_taken)
        return b.sum(b.op("Mul", taken, numbers), [2, 3])

    @cached_property
    def boxes(self) -> ir.Value | None:
        """Left, top, right, bottom of every row in pixels of the input, ``[N, A, 4]``.

        All are 0 where no way to read them fits; ``None`` where there is no way, or no known size.
        """
        if self.size is None:
            return None
        kept = self.b.op("Greater", self.confidences, self.b.constant(self._least, _FLOAT))
        kept = self.b.op("Unsqueeze", self.b.op("Cast", kept, to=_FLOAT), self.b.ints(2))
        count = (dims(self.tensor) or [None, None])[1]
        known = count if isinstance(count, int) else None
        return Corners(self.b, self.values, kept, self.reading, known, self.size).found()

    def add_outputs(self) -> None:
        """Give the graph rows and numbers ``[N, T]``; classes, confidences and boxes of rows."""
        b = self.b
        batch, count = (dims(self.tensor) or [None, None])[:2]
        rows = b.turned(self.rows)
        if self.there is not None:
            rows = b.op("Where", b.turned(self.there), rows, b.ints(-1))
        add_output(b, TARGETS, rows, _INT, [batch, self.T])
        add_numbers(b, self.value, [batch, self.T])
        add_output(b, CLASSES, self.classes, _INT, [batch, count])
        add_output(b, CONFIDENCES, self.confidences, _FLOAT, [batch, count])
        if self.boxes is not None:
            add_output(b, BOXES, self.boxes, _FLOAT, [batch, count, 4])
