"""A detector's rows as targets: which one is told by each run, or the surest of a class.

What is explained is what :mod:`onnxcam.targets.boxes` explains: the logit of the row's class, with
objectness log p(object) + log p(class). How the numbers are read, where the model does not say it,
the run's numbers decide, as in :mod:`onnxcam.targets.detections`. Overlapping boxes are not left
out: the surest row is the surest detection whatever overlaps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.plan import WEIGHTS, DetectorFacts
from onnxcam.surgeon.portable.cells import from_cells
from onnxcam.surgeon.portable.finish import largest
from onnxcam.surgeon.portable.named import TARGETS, add_numbers, becomes, told_input
from onnxcam.surgeon.seeds.classes import add_output
from onnxcam.surgeon.seeds.weights import WeightSeeds

CLASSES = f"{PREFIX}classes"  # output: int64 [N, A], the best class of every row
CONFIDENCES = f"{PREFIX}confidences"  # output: float [N, A]
BOXES = f"{PREFIX}boxes"  # output: float [N, A, 4]
_FLOAT, _INT = ir.DataType.FLOAT, ir.DataType.INT64
# See onnxcam.targets.detections.
_MANY, _LEAST, _NEARLY_ALL, _FEW, _THRESHOLD = 0.5, 1e-12, 0.95, 2.0, 0.25


@dataclass(frozen=True)
class AnyRow:
    """Rows that each run is told, -1 for the surest; ``required`` as of classes."""

    required: bool = False


@dataclass(frozen=True)
class TheseBoxes:
    """The surest row of each of these classes; ``None``: of all."""

    classes: tuple[int | None, ...]


class PortableRows(WeightSeeds):
    """The seeds of a detector's rows, ``[N, A, 4 + S]``: a box, then scores."""

    def __init__(
        self,
        b: Builder,
        tensor: ir.Value,
        reading: DetectorFacts,
        aim: AnyRow | TheseBoxes,
        size: tuple[int, int] | None,
    ) -> None:
        """Take the tensor, how it is read, and width and height of the input, if they are known."""
        super().__init__(b, tensor, "T" if isinstance(aim, AnyRow) else len(aim.classes))
        self.reading, self.width = reading, int((dims(tensor) or [])[-1] or 0)
        self.size, self.values = size, b.op("Cast", tensor, to=_FLOAT)
        self.rows = self._told(aim.required) if isinstance(aim, AnyRow) else self._surest(aim)
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
        told = told_input(b, required)
        surest = b.op("ArgMax", self.confidences, axis=1, keepdims=1)
        return b.turned(b.op("Where", b.op("Less", told, b.ints(0)), surest, told))

    def _surest(self, aim: TheseBoxes) -> ir.Value:
        """Return the surest row of each class, ``[T, N]``."""
        b, rows = self.b, []
        for index in aim.classes:
            sure = self.confidences
            if index is not None:
                if self.reading.most is None:
                    mine = b.op("Equal", self.classes, b.ints(index))
                    sure = b.op("Where", mine, sure, b.constant(-1.0, _FLOAT))
                else:  # the model's own suppression takes each class by itself
                    sure = b.op("Gather", self._shares, b.constant(np.int64(index)), axis=2)
            rows.append(b.op("Unsqueeze", b.op("ArgMax", sure, axis=1, keepdims=0), b.ints(0)))
        return rows[0] if len(rows) == 1 else b.op("Concat", *rows, axis=0)

    @cached_property
    def _row(self) -> ir.Value:
        """1 in the explained rows, ``[T, N, A, 1]``."""
        b = self.b
        count = b.op("Gather", b.op("Shape", self.values), b.constant(np.int64(1)), axis=0)
        hot = b.op("OneHot", self.rows, count, b.constant(np.array([0, 1]), _FLOAT), axis=-1)
        return b.op("Unsqueeze", hot, b.ints(3))

    @cached_property
    def _class(self) -> ir.Value:
        """1 in the column of each row's class, ``[1, N, A, 4 + S]``."""
        b = self.b
        if self.reading.final:
            column = np.zeros((1, 1, 1, self.width), np.float32)
            column[..., 4] = 1
            return b.constant(column)
        at = b.op("Add", self.classes, b.ints(self._first))
        pair = b.constant(np.array([0, 1]), _FLOAT)
        hot = b.op("OneHot", at, b.constant(np.int64(self.width)), pair, axis=-1)
        return b.op("Unsqueeze", hot, b.ints(0))

    @cached_property
    def _columns_taken(self) -> ir.Value:
        """1 in the columns that the number is made of, ``[1, N, A, 4 + S]``."""
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

    def boxes(self, width: int, height: int) -> ir.Value | None:
        """Return left, top, right, bottom of every row in pixels of the input, ``[N, A, 4]``.

        As :mod:`onnxcam.targets.detections` reads them: the first way that gives plausible boxes.
        All are 0 where none does; ``None`` where there is no way.
        """
        b, size = self.b, self.b.constant(np.array([width, height] * 2, np.float32))
        threshold = _THRESHOLD if self.reading.threshold is None else self.reading.threshold
        kept = b.op("Greater", self.confidences, b.constant(threshold, _FLOAT))
        kept = b.op("Unsqueeze", b.op("Cast", kept, to=_FLOAT), b.ints(2))
        one = b.constant(1.0, _FLOAT)
        ways = [] if self.reading.offsets else [(self._written(kept, size), one)]
        count = (dims(self.tensor) or [None, None])[1]
        ways += from_cells(
            b, self.values, count if isinstance(count, int) else None, (width, height)
        )
        found, free = None, one
        for way, fits in ways:
            sure = b.op("Mul", b.op("Mul", self._plausible(way, kept, size), free), fits)
            part, free = b.op("Mul", way, sure), b.op("Sub", free, sure)
            found = part if found is None else b.op("Add", found, part)
        return found

    def _written(self, kept: ir.Value, size: ir.Value) -> ir.Value:
        """Return boxes that are corners, or centre and size, in pixels or in parts of the image."""
        b = self.b
        one, other = self._columns(0, 2), self._columns(2, 4)
        corners = [b.op("Min", one, other), b.op("Max", one, other)]
        half = b.op("Mul", other, b.constant(0.5, _FLOAT))
        centres = [b.op("Sub", one, half), b.op("Add", one, half)]
        if self.reading.corners is None:
            bad = b.op("Cast", b.op("Not", b.op("Greater", other, one)), to=_FLOAT)
            share = b.mean(largest(b, bad, [2]), [1], keepdims=True)
            ordered = b.op("Less", share, b.constant(1 - _NEARLY_ALL, _FLOAT))
            pairs = zip(corners, centres, strict=True)
            ends = [b.op("Where", ordered, ours, theirs) for ours, theirs in pairs]
        else:
            ends = corners if self.reading.corners else centres
        found = b.op("Concat", *ends, axis=2)
        reach = largest(b, b.op("Mul", b.op("Abs", self._columns(0, 4)), kept), [1, 2])
        small = b.op("Not", b.op("Greater", reach, b.constant(_FEW, _FLOAT)))
        parts = b.op("And", small, b.op("Greater", reach, b.constant(0.0, _FLOAT)))
        return b.op("Where", parts, b.op("Mul", found, size), found)

    def _plausible(self, boxes: ir.Value, kept: ir.Value, size: ir.Value) -> ir.Value:
        """Return 1 where nearly all boxes have a size and lie in the image, else 0."""
        b = self.b
        one = b.op("Slice", boxes, b.ints(0), b.ints(2), b.ints(2))
        other = b.op("Slice", boxes, b.ints(2), b.ints(4), b.ints(2))
        ends = b.op("Slice", size, b.ints(0), b.ints(2))
        middle = b.op("Mul", b.op("Add", one, other), b.constant(0.5, _FLOAT))
        out = b.op(
            "Or", b.op("Less", middle, b.constant(0.0, _FLOAT)), b.op("Greater", middle, ends)
        )
        out = b.op("Or", out, b.op("Not", b.op("Greater", other, one)))
        bad = b.op("Mul", largest(b, b.op("Cast", out, to=_FLOAT), [2]), kept)
        most = b.op("Mul", b.sum(kept, [1, 2], keepdims=True), b.constant(1 - _NEARLY_ALL, _FLOAT))
        too_many = b.op("Greater", b.sum(bad, [1, 2], keepdims=True), most)
        return b.op("Cast", b.op("Not", too_many), to=_FLOAT)

    def add_outputs(self) -> None:
        """Give the graph rows and numbers ``[N, T]``; classes, confidences and boxes of rows."""
        b = self.b
        batch, count = (dims(self.tensor) or [None, None])[:2]
        add_output(b, TARGETS, b.turned(self.rows), _INT, [batch, self.T])
        add_numbers(b, self.value, [batch, self.T])
        add_output(b, CLASSES, self.classes, _INT, [batch, count])
        add_output(b, CONFIDENCES, self.confidences, _FLOAT, [batch, count])
        boxes = None if self.size is None else self.boxes(*self.size)
        if boxes is not None:
            add_output(b, BOXES, boxes, _FLOAT, [batch, count, 4])
