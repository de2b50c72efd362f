"""Append operators to a graph, with constants stored once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

PREFIX = "onnxcam:"


class Builder:
    """Appends nodes to ``graph``; every name it makes starts with ``onnxcam:``."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self.graph = graph
        self.opset = opset
        self.dequantized: dict[ir.Value, ir.Value] = {}  # filled by the rules
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        taken = {v.name for n in graph for v in n.outputs} | set(graph.initializers)
        self._count = sum(1 for name in taken if name and name.startswith(PREFIX))

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"{PREFIX}{hint}.{self._count}"

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append one node and return its only output."""
        return self.op_many(op_type, inputs, 1, **attributes)[0]

    def op_many(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append one node and return its outputs."""
        name = self._name(op_type)
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = name if index == 0 else f"{name}.{index}"
        self.graph.append(node)
        return node.outputs

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """Append a node like ``node`` with other inputs; return its first output."""
        kept = {name: attribute.value for name, attribute in node.attributes.items()}
        return self.op(node.op_type, *inputs, **kept)

    def constant(self, array: Any, dtype: ir.DataType | None = None) -> ir.Value:
        """Return a stored constant; equal ones are shared.

        ``dtype`` converts; without it Python integers become int64.
        """
        array = np.asarray(array)
        if dtype is not None:
            array = array.astype(dtype.numpy())
        elif array.dtype.kind == "i":
            array = array.astype(np.int64)
        key = (array.dtype.str, str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.tensor(array, name=self._name("constant"))
            value = ir.Value(
                name=tensor.name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """Return a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def shape(self, value: ir.Value) -> ir.Value:
        """Return the shape of ``value`` as an int64 vector, constant when it is static."""
        if value.shape is not None and value.shape.is_static():
            return self.ints(*[int(d) for d in value.shape])  # type: ignore[arg-type]
        return self.op("Shape", value)

    def space(self, value: ir.Value) -> ir.Value:
        """Return the lengths of the axes after the first two, as an int64 vector."""
        assert value.shape is not None
        rank = len(value.shape)
        return self.op("Slice", self.shape(value), self.ints(2), self.ints(rank))

    def places(self, value: ir.Value) -> ir.Value:
        """Return the number of places in space, as a scalar of the value's own type."""
        kind = value.dtype or ir.DataType.FLOAT
        lengths = list(value.shape or ())[2:]
        known = [d for d in lengths if isinstance(d, int)]
        if len(known) == len(lengths):
            return self.constant(float(np.prod(known)), kind)
        return self.op("Cast", self.op("ReduceProd", self.space(value), keepdims=0), to=kind)

    def sum(self, value: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Sum over constant axes; no axes is no operation."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.ints(*axes), keepdims=int(keepdims))

    def mean(self, value: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Average over constant axes; no axes is no operation."""
        if not axes:
            return value
        if self.opset >= 18:
            return self.op("ReduceMean", value, self.ints(*axes), keepdims=int(keepdims))
        return self.op("ReduceMean", value, axes=list(axes), keepdims=int(keepdims))
