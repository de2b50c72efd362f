"""Weighted sums of a tensor's numbers as targets; the weights are fed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.find.quantized import last_quantizers
from onnxcam.surgeon.plan import VALUES, WEIGHTS
from onnxcam.surgeon.seeds.classes import add_output
from onnxcam.surgeon.seeds.head import Cotangent


class WeightSeeds:
    """The seeds of weighted sums over one tensor ``[N, *P]``.

    The graph gets the input :data:`~onnxcam.surgeon.plan.WEIGHTS`, ``[T, N, *P]`` (or ``[T, 1,
    *P]``) of the tensor's own type.

    Attributes:
        value: the sums, ``[T, N]``.
    """

    def __init__(self, b: Builder, tensor: ir.Value, T: str | int = "T") -> None:
        self.b, self.tensor, self.T = b, tensor, T
        self.rank = len(dims(tensor) or []) - 1
        sizes = [f"weights_{i}" for i in range(self.rank)]
        shape = ir.Shape([T, "weights_N", *sizes])
        self.weights = ir.Value(name=WEIGHTS, shape=shape, type=tensor.type)
        b.graph.inputs.append(self.weights)

    @property
    def value(self) -> ir.Value:
        """The sums, ``[T, N]``."""
        product = self.b.op("Mul", self.tensor, self.weights)
        return self.b.sum(product, list(range(2, self.rank + 2))) if self.rank else product

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return where every walk starts: at the tensor, from the weights."""
        space = list(range(3, self.rank + 2))
        unclipped = frozenset(last_quantizers(self.tensor))
        return Cotangent(
            self.tensor,
            lambda: self.weights,
            lambda: self.b.sum(self.weights, space) if space else self.weights,
            unclipped,
        )

    def add_outputs(self) -> None:
        """Give the graph the sums as an output, ``[N, T]``."""
        values = self.b.op("Transpose", self.value, perm=[1, 0])
        add_output(self.b, VALUES, values, self.tensor.dtype, ["weights_N", self.T])
