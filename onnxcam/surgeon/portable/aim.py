"""What a portable model explains: where its walks start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.choose import Chosen
from onnxcam.surgeon.find.score import Score
from onnxcam.surgeon.instrument import element_tensor
from onnxcam.surgeon.plan import ELEMENTS, WEIGHTS
from onnxcam.surgeon.portable.boxes import AnyRow, PortableRows, TheseBoxes
from onnxcam.surgeon.portable.named import TARGETS, add_numbers, becomes, told_input
from onnxcam.surgeon.portable.photograph import Photograph
from onnxcam.surgeon.portable.weigh import Weigh
from onnxcam.surgeon.seeds.classes import ScoreSeeds, add_output
from onnxcam.surgeon.seeds.elements import ElementSeeds
from onnxcam.surgeon.seeds.weights import WeightSeeds
from onnxcam.surgeon.site import Seeds

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class AnyClass:
    """Classes that each run is told, by an input with a default or without one.

    Attributes:
        required: whether the input has no default: some runtimes take defaults for constants.
    """

    required: bool = False


@dataclass(frozen=True)
class TheseClasses:
    """Classes that are fixed: ``[T]`` indices, and ``[T]`` ranks where the index is -1."""

    indices: tuple[int, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class TheseElements:
    """Elements of a tensor that are fixed: their indices ``[T, rank of P]``."""

    indices: Rows


@dataclass(frozen=True)
class TheseSums:
    """Weighted sums of a tensor ``[N, *P]``: what writes the weights of each into the graph."""

    weigh: tuple[Weigh, ...]


Aim = AnyClass | TheseClasses | TheseElements | TheseSums | AnyRow | TheseBoxes


class PortableClasses(ScoreSeeds):
    """The seeds of class scores, with outputs ``[N, T]``."""

    def __init__(self, b: Builder, score: Score, aim: AnyClass | TheseClasses) -> None:
        if isinstance(aim, AnyClass):
            required = aim.required
            super().__init__(b, score, lambda scores: _told(b, scores, required))
        else:
            fixed = aim
            super().__init__(b, score, lambda scores: _fixed(b, scores, fixed), len(aim.indices))

    def add_outputs(self) -> None:
        """Give the graph the classes and their scores as outputs."""
        batch = (dims(self.scores) or [None])[0]
        add_output(self.b, TARGETS, self.b.turned(self.classes), ir.DataType.INT64, [batch, self.T])
        add_numbers(self.b, self.value, [batch, self.T])


def _told(b: Builder, scores: ir.Value, required: bool) -> ir.Value:
    """Return the classes of the input, ``[T, N]``."""
    told = told_input(b, required, (dims(scores) or [None])[0])
    best = b.op("ArgMax", scores, axis=1, keepdims=1)
    return b.turned(b.op("Where", b.op("Less", told, b.ints(0)), best, told))


def _fixed(b: Builder, scores: ir.Value, aim: TheseClasses) -> ir.Value:
    """Return the classes that are fixed, ``[T, N]``."""
    indices = b.constant(np.array(aim.indices, np.int64)[:, None])
    if -1 in aim.indices:
        ranked = _ranked(b, scores, aim.ranks)
        if set(aim.indices) == {-1}:
            return ranked
        return b.op("Where", b.constant(np.array(aim.indices)[:, None] < 0), ranked, indices)
    batch = (dims(scores) or [None])[0]
    if isinstance(batch, int):
        return b.constant(np.repeat(np.array(aim.indices, np.int64)[:, None], batch, 1))
    count = b.op("Slice", b.op("Shape", scores), b.ints(0), b.ints(1))
    return b.op("Expand", indices, b.op("Concat", b.ints(1), count, axis=0))


def _ranked(b: Builder, scores: ir.Value, ranks: tuple[int, ...]) -> ir.Value:
    """Return the classes of these ranks in the prediction, ``[len(ranks), N]``."""
    if set(ranks) == {0}:
        best = b.op("ArgMax", scores, axis=1, keepdims=0)
        best = b.op("Unsqueeze", best, b.ints(0))
        return best if len(ranks) == 1 else b.op("Concat", *[best] * len(ranks), axis=0)
    _, order = b.op_many("TopK", [scores, b.ints(max(ranks) + 1)], 2, axis=1)
    order = b.op("Transpose", order, perm=[1, 0])
    if list(ranks) == list(range(len(ranks))):
        return order
    return b.op("Gather", order, b.ints(*ranks), axis=0)


class PortableElements(ElementSeeds):
    """The seeds of elements that are fixed."""

    def __init__(self, b: Builder, tensor: ir.Value, aim: TheseElements) -> None:
        super().__init__(b, tensor, len(aim.indices))
        becomes(b, ELEMENTS, b.constant(aim.indices[:, None]))

    def add_outputs(self) -> None:
        """Give the graph the explained numbers as an output."""
        add_numbers(self.b, self.value, [(dims(self.tensor) or [None])[0], self.T])


class PortableSums(WeightSeeds):
    """The seeds of weighted sums whose weights the graph makes."""

    def __init__(self, b: Builder, tensor: ir.Value, aim: TheseSums) -> None:
        super().__init__(b, tensor, len(aim.weigh))
        made = [weigh(b, tensor) for weigh in aim.weigh]
        weights, sizes = _joined(b, [w for w, _ in made], tensor), dims(tensor) or []
        weights.shape, weights.type = ir.Shape([len(made), *sizes]), tensor.type
        becomes(b, WEIGHTS, weights)
        self.weights = weights
        self.numbers = [number for _, number in made]

    @property
    def value(self) -> ir.Value:
        """The explained numbers, ``[T, N]``: the sums, or what was said of them."""
        sums = super().value
        if all(number is None for number in self.numbers):
            return sums
        b, rows = self.b, []
        for t, number in enumerate(self.numbers):
            rows.append(
                number if number is not None else b.op("Slice", sums, b.ints(t), b.ints(t + 1))
            )
        return rows[0] if len(rows) == 1 else b.op("Concat", *rows, axis=0)

    def add_outputs(self) -> None:
        """Give the graph the explained numbers as an output."""
        add_numbers(self.b, self.value, [(dims(self.tensor) or [None])[0], self.T])


def _joined(b: Builder, rows: list[ir.Value], tensor: ir.Value) -> ir.Value:
    """Return weights ``[1, N or 1, *P]`` of each target as ``[T, N, *P]``."""
    shape = b.op("Concat", b.ints(1), b.op("Shape", tensor), axis=0)
    full = [b.op("Expand", row, shape) for row in rows]
    return full[0] if len(full) == 1 else b.op("Concat", *full, axis=0)


def seeds_of(b: Builder, chosen: Chosen, aim: Aim, photograph: Photograph | None) -> Seeds:
    """Return where walks start; points are those of the photograph where there is one."""
    if isinstance(aim, AnyClass | TheseClasses):
        return PortableClasses(b, chosen.score, aim)
    tensor = element_tensor(b, chosen)
    if isinstance(aim, TheseElements):
        return PortableElements(b, tensor, aim)
    if isinstance(aim, TheseSums):
        return PortableSums(b, tensor, aim)
    assert chosen.reading is not None
    image = chosen.image
    size = (image.width, image.height) if image.width and image.height else None
    return PortableRows(b, tensor, chosen.reading, aim, size, photograph)
