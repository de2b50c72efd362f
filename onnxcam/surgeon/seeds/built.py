"""Class scores whose gradient ONNX Runtime's own builder has written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxcam.errors import EngineError
from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.find.score import Score
from onnxcam.surgeon.seeds.classes import ClassSeeds
from onnxcam.surgeon.seeds.head import Cotangent, score_cotangent

if TYPE_CHECKING:
    from onnxcam.gradient.ort.engine import Built


class BuiltSeeds(ClassSeeds):
    """The seeds of class scores in a graph that holds the gradient already; ``T`` is 1."""

    def __init__(self, b: Builder, score: Score, built: Built, layer: ir.Value) -> None:
        super().__init__(b, score, T=1)
        self.layer = layer
        hot = score_cotangent(b, score.value, self.classes).full()
        for use in tuple(built.seed.uses()):
            use.node.replace_input_with(use.idx, hot)
        b.graph.inputs.remove(built.seed)
        b.graph.sort()
        [self.gradient] = built.gradients

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return the gradient at the layer.

        Raises:
            EngineError: something else is asked for.
        """
        if overrides or to is not self.layer:
            raise EngineError(
                "engine 'ort' gives the derivative at the layer only; engine 'rules' does the rest."
            )
        space = list(range(3, len(dims(self.layer) or []) + 1))
        return Cotangent(to, lambda: self.gradient, lambda: self.b.sum(self.gradient, space))
