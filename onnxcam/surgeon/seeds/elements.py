"""Single elements of any tensor as targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims
from onnxcam.surgeon.find.axes import class_axis
from onnxcam.surgeon.find.quantized import last_quantizers
from onnxcam.surgeon.plan import ELEMENTS, VALUES
from onnxcam.surgeon.seeds.classes import add_output
from onnxcam.surgeon.seeds.head import Cotangent, class_cotangent


class ElementSeeds:
    """The seeds of elements of one tensor ``[N, *P]``.

    The graph gets the input :data:`~onnxcam.surgeon.plan.ELEMENTS`, int64 ``[T, N, rank of P]``
    (or ``[T, 1, ...]``): which element of each image's tensor is explained.

    Attributes:
        value: the explained elements, ``[T, N]``.
    """

    def __init__(self, b: Builder, tensor: ir.Value, T: str | int = "T") -> None:
        self.b, self.tensor = b, tensor
        self.rank = len(dims(tensor) or []) - 1
        self.T = T
        shape = ir.Shape([T, "elements_N", self.rank])
        self.index = ir.Value(name=ELEMENTS, shape=shape, type=ir.TensorType(ir.DataType.INT64))
        b.graph.inputs.append(self.index)
        lengths = b.op("Slice", b.op("Shape", tensor), b.ints(1), b.ints(self.rank + 1))
        # [T, N]: the element's number in the flat tensor, N as long as the tensor's batch
        later = b.op("Concat", lengths, b.ints(1), axis=0)
        steps = [
            b.op("ReduceProd", b.op("Slice", later, b.ints(i + 1), b.ints(self.rank + 1)))
            for i in range(self.rank)
        ]
        weighted = b.op("Mul", self.index, b.op("Concat", *steps, axis=0))
        flat = b.op("ReduceSum", weighted, b.ints(-1), keepdims=0)
        batch = b.op("Slice", b.op("Shape", tensor), b.ints(0), b.ints(1))
        self.flat = b.op("Expand", flat, b.op("Concat", b.ints(1), batch, axis=0))

    @property
    def value(self) -> ir.Value:
        """The explained elements, ``[T, N]``."""
        b = self.b
        flat = b.op("Reshape", self.tensor, b.ints(0, -1))
        index = b.op("Unsqueeze", b.op("Transpose", self.flat, perm=[1, 0]), b.ints(-1))
        return b.op("Transpose", b.op("GatherND", flat, index, batch_dims=1), perm=[1, 0])

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return where a walk starts: at the tensor, from one-hot cotangents.

        Of numbers along one axis, as class scores are, the walk starts where that of a class does.
        """
        b = self.b
        if not overrides and class_axis(self.tensor) == 1:
            return class_cotangent(b, self.tensor, self.flat, to)

        def full() -> ir.Value:
            size = b.op("ReduceProd", b.op("Shape", self.tensor), keepdims=0)
            batch = b.op("Gather", b.op("Shape", self.tensor), b.constant(np.int64(0)), axis=0)
            pair = b.constant(np.array([0, 1]), self.tensor.dtype)
            hot = b.op("OneHot", self.flat, b.op("Div", size, batch), pair, axis=-1)
            return b.op(
                "Reshape", hot, b.op("Concat", b.ints(-1), b.op("Shape", self.tensor), axis=0)
            )

        space = list(range(3, self.rank + 2))
        unclipped = frozenset(last_quantizers(self.tensor))
        return Cotangent(self.tensor, full, lambda: b.sum(full(), space), unclipped)

    def add_outputs(self) -> None:
        """Give the graph the explained elements as an output, ``[N, T]``."""
        b = self.b
        values = b.op("Transpose", self.value, perm=[1, 0])
        add_output(b, VALUES, values, self.tensor.dtype, ["elements_N", self.T])
