"""Class scores made of several: those of Finer-CAM and of ShapleyCAM's paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcam.errors import MethodError
from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.find.quantized import last_quantizers
from onnxcam.surgeon.seeds.classes import ClassSeeds
from onnxcam.surgeon.seeds.head import Cotangent


class _OfScores:
    """The seeds of what is made of all class scores; every walk starts at these."""

    def __init__(self, seeds: ClassSeeds) -> None:
        """Take the seeds of classes.

        Raises:
            MethodError: the model has one class only.
        """
        if seeds.score.classes == 1:
            raise MethodError("it compares classes, and the model has one only.")
        self.b: Builder = seeds.b
        self.T = seeds.T
        self._seeds = seeds

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return where every walk starts: at the scores."""
        score = self._seeds.score.value
        space = list(range(3, len(dims(score) or []) + 1))
        return Cotangent(
            score,
            self._full,
            lambda: self.b.sum(self._full(), space) if space else self._full(),
            frozenset(last_quantizers(score)),
        )

    def add_outputs(self) -> None:
        """Add nothing: the record tells of the class."""

    def _full(self) -> ir.Value:
        """Return the derivative by all scores, in their shape."""
        b, score, slopes = self.b, self._seeds.score.value, self._slopes()
        if len(dims(score) or []) == 2:
            return slopes
        return b.op("Reshape", slopes, b.op("Concat", b.ints(-1), b.op("Shape", score), axis=0))

    def _slopes(self) -> ir.Value:
        """Return the derivative by all scores, ``[T, N, C]``."""
        raise NotImplementedError

    def _hot(self, classes: ir.Value) -> ir.Value:
        b, scores = self.b, self._seeds.scores
        depth = b.op("Gather", b.op("Shape", scores), b.constant(np.int64(1)), axis=0)
        return b.op("OneHot", classes, depth, b.constant(np.array([0, 1]), scores.dtype), axis=-1)

    def _like(self, number: float) -> ir.Value:
        return self.b.constant(number, self._seeds.scores.dtype or ir.DataType.FLOAT)


class ComparedSeeds(_OfScores):
    """The seeds of ``y_c - alpha sum_d q_d y_d``.

    The classes ``d`` are those whose scores are nearest to that of ``c``; ``q`` is their softmax,
    which is differentiated too, as pytorch-grad-cam does.

    Attributes:
        value: the explained differences, ``[T, N]``.
    """

    def __init__(self, seeds: ClassSeeds, alpha: float, count: int) -> None:
        """Take the seeds of classes, and how many others each is compared with.

        Raises:
            MethodError: the model has one class only.
        """
        super().__init__(seeds)
        self._alpha, self._count = alpha, count

    @property
    def value(self) -> ir.Value:
        """The explained differences, ``[T, N]``."""
        q = self._shares()
        others = self.b.sum(self.b.op("Mul", q, self._seeds.scores), [-1])
        return self.b.op(
            "Sub", self._seeds.value, self.b.op("Mul", others, self._like(self._alpha))
        )

    def _slopes(self) -> ir.Value:
        """Return ``1_c - alpha q_d (1 + y_d - sum_e q_e y_e)``."""
        b, scores = self.b, self._seeds.scores
        q = self._shares()
        mean = b.sum(b.op("Mul", q, scores), [-1], keepdims=True)
        slope = b.op("Add", b.op("Sub", scores, mean), self._like(1.0))
        away = b.op("Mul", b.op("Mul", q, slope), self._like(self._alpha))
        return b.op("Sub", self._hot(self._seeds.classes), away)

    def _shares(self) -> ir.Value:
        """Return the softmax over the compared classes, ``[T, N, C]``, 0 of all others."""
        b, scores = self.b, self._seeds.scores
        own = b.op("Unsqueeze", self._seeds.value, b.ints(-1))
        away = b.op("Abs", b.op("Sub", scores, own))
        far = self._like(float(np.finfo((scores.dtype or ir.DataType.FLOAT).numpy()).max))
        zero = self._like(0.0)
        away = b.op("Where", b.op("Greater", self._hot(self._seeds.classes), zero), far, away)
        others = b.op("Sub", b.op("Slice", b.op("Shape", scores), b.ints(1), b.ints(2)), b.ints(1))
        count = b.op("Min", others, b.ints(self._count))
        _, nearest = b.op_many("TopK", [away, count], 2, axis=-1, largest=0)
        chosen = b.sum(self._hot(nearest), [-2])
        inner = b.op("Where", b.op("Greater", chosen, zero), scores, b.op("Neg", far))
        return b.op("Softmax", inner, axis=-1)


class ResidualSeeds(_OfScores):
    """The seeds of ``y_c + log softmax(y)_c``, ReST of Cai (2025).

    Attributes:
        value: these numbers, ``[T, N]``.
    """

    @property
    def value(self) -> ir.Value:
        """The explained numbers, ``[T, N]``."""
        b = self.b
        total = b.reduced("ReduceLogSumExp", self._seeds.scores, [1])
        twice = b.op("Mul", self._seeds.value, self._like(2.0))
        return b.op("Sub", twice, total)

    def _slopes(self) -> ir.Value:
        """Return ``2 1_c - softmax(y)``."""
        b = self.b
        twice = b.op("Mul", self._hot(self._seeds.classes), self._like(2.0))
        return b.op("Sub", twice, b.op("Softmax", self._seeds.scores, axis=-1))
