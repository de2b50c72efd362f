"""Class scores as targets: inputs of the instrumented graph, ranks resolved inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.find.quantized import last_quantizers
from onnxcam.surgeon.find.score import Score
from onnxcam.surgeon.plan import CLASSES, RANKS, SCORES, TARGETS
from onnxcam.surgeon.seeds.head import (
    Cotangent,
    class_cotangent,
    index_of,
    score_cotangent,
)


class ScoreSeeds:
    """The seeds of class scores, the classes being given.

    Attributes:
        value: the explained scores ``[T, N]``, before Softmax or Sigmoid.
        classes: class indices ``[T, N]``, int64.
        scores: all scores, ``[N, C]``.
    """

    def __init__(
        self, b: Builder, score: Score, classes: Callable[[ir.Value], ir.Value], T: str | int = "T"
    ) -> None:
        """Take the score, and what makes ``classes`` of all scores ``[N, C]``."""
        self.b, self.score, self.T = b, score, T
        self.scores = _flat_scores(b, score.value)
        self.classes = classes(self.scores)

    @property
    def value(self) -> ir.Value:
        """The explained scores, ``[T, N]``."""
        return self._picked(self.scores)

    @property
    def share(self) -> ir.Value:
        """The explained classes' probabilities, ``[T, N]``: by Sigmoid where the model says so."""
        single = self.score.classes == 1 or "Sigmoid" in self.score.passed
        squashing: dict[str, Any] = {} if single else {"axis": -1}
        return self._picked(self.b.op("Sigmoid" if single else "Softmax", self.scores, **squashing))

    def _picked(self, scores: ir.Value) -> ir.Value:
        """Return of scores ``[N, C]`` those of the classes, ``[T, N]``."""
        b = self.b
        picked = b.op("GatherND", scores, index_of(b, self.classes), batch_dims=1)  # [N, T]
        picked.type = scores.type
        return b.turned(picked)

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return where a walk to a tensor starts: for the derivative, at one class's weights."""
        if overrides:
            start = score_cotangent(self.b, self.score.value, self.classes)
            return replace(start, unclipped=frozenset(last_quantizers(self.score.value)))
        return class_cotangent(self.b, self.score.value, self.classes, to)

    def add_outputs(self) -> None:
        """Give the graph the scores and the classes as outputs."""
        b, graph = self.b, self.b.graph
        if self.scores is self.score.value:
            if self.scores not in graph.outputs:
                graph.outputs.append(self.scores)
        else:
            shape = ["scores_N", self.score.classes]
            add_output(b, SCORES, self.scores, self.score.value.dtype, shape)
        add_output(b, CLASSES, self.classes, ir.DataType.INT64, [self.T, "scores_N"])


class ClassSeeds(ScoreSeeds):
    """The seeds of class scores, the classes being an input.

    The graph gets two inputs that may be left out: :data:`~onnxcam.surgeon.plan.TARGETS`, int64
    ``[T, N]`` (or ``[T, 1]``), class indices, where -1 takes the class of the row's rank; and
    :data:`~onnxcam.surgeon.plan.RANKS`, int64 ``[T]``, the rows' ranks in the prediction, 0 the
    predicted class. Without them it is the predicted class.
    """

    def __init__(self, b: Builder, score: Score, T: str | int = "T") -> None:
        targets = optional_input(b.graph, TARGETS, [T, "targets_N"], [[-1]])
        ranks = optional_input(b.graph, RANKS, [T], [0])
        super().__init__(b, score, lambda s: _resolve(b, s, targets, ranks, score.classes), T)


def add_output(
    b: Builder, name: str, value: ir.Value, dtype: ir.DataType | None, shape: Sequence[Any] | None
) -> None:
    """Name a value as an output; a tensor of the original model keeps its own name too."""
    node = value.producer()
    if node is None or not b.is_own(node) or value in b.graph.outputs:
        value = b.op("Identity", value)
    value.name, value.shape = name, None if shape is None else ir.Shape(shape)
    value.type = None if dtype is None else ir.TensorType(dtype)
    b.graph.outputs.append(value)


def optional_input(
    graph: ir.Graph, name: str, shape: Sequence[str | int], default: list[Any]
) -> ir.Value:
    """Append an input with a default: an initializer of the same name (IR 4 and up)."""
    value = ir.Value(
        name=name,
        shape=ir.Shape(shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array(default, np.int64), name=name),
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def _flat_scores(b: Builder, score: ir.Value) -> ir.Value:
    """Return the scores as ``[N, C]``."""
    shape = dims(score)
    assert shape is not None
    if len(shape) == 1:
        return b.op("Unsqueeze", score, b.ints(0))
    return score if len(shape) == 2 else b.op("Reshape", score, b.ints(0, -1))


def _resolve(
    b: Builder, scores: ir.Value, targets: ir.Value, ranks: ir.Value, count: int | None
) -> ir.Value:
    """Return class indices ``[T, N]``: ranks looked up, the rest as they came."""
    depth = b.op("Add", b.op("ReduceMax", ranks, keepdims=1), b.ints(1))
    if count is None:  # the caller could not check the ranks
        depth = b.op("Min", depth, b.op("Slice", b.op("Shape", scores), b.ints(1), b.ints(2)))
    _, order = b.op_many("TopK", [scores, depth], 2, axis=1)
    ranked = b.op("Gather", b.op("Transpose", order, perm=[1, 0]), ranks, axis=0)
    return b.op("Where", b.op("Less", targets, b.ints(0)), ranked, targets)
