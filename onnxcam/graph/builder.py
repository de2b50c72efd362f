"""Append operators to a graph, with constants stored once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy as shallow_copy
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcam.graph.values import dims, subgraphs

PREFIX = "onnxcam:"


def _highest(graph: ir.Graph) -> int:
    """Return the highest number among names that an earlier builder made."""
    nodes = list(graph.all_nodes())
    outputs = [v for n in nodes for v in n.outputs]
    taken = [v.name for v in outputs] + list(graph.initializers)
    taken += [d for v in outputs for d in dims(v) or [] if isinstance(d, str)]
    taken += [v.name for n in nodes for g in subgraphs(n) for v in g.inputs]
    numbers = (n.rpartition(".")[2] for n in taken if n and n.startswith(PREFIX))
    return max((int(n) for n in numbers if n.isdigit()), default=0)


def shaped(value: ir.Value, like: ir.Value) -> ir.Value:
    """Give a value the shape and type of ``like``, which inference may not find; return it."""
    value.shape, value.type = like.shape, like.type
    return value


class Builder:
    """Appends nodes to ``graph``; every name it makes starts with ``onnxcam:``."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self.graph = graph
        self.root = graph  # where constants are stored
        self.opset = opset
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._derived: dict[tuple[str, ir.Value], ir.Value] = {}
        self._count = count(_highest(graph) + 1)

    def subgraph(self, name: str, inputs: Sequence[ir.Value]) -> Builder:
        """Return a builder of a new subgraph (the body of If, Loop or Scan).

        It draws names from the same counter, and its constants are stored in the outermost
        graph, which subgraphs may read.
        """
        builder = shallow_copy(self)
        builder.graph = ir.Graph(
            inputs, [], nodes=[], name=self.name(name), opset_imports=self.root.opset_imports
        )
        builder._derived = dict(self._derived)
        return builder

    def once(self, kind: str, value: ir.Value, make: Callable[[], ir.Value]) -> ir.Value:
        """Return what ``make`` derives from ``value``; it is called once per kind and value."""
        key = kind, value
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def name(self, hint: str) -> str:
        """Return a name that nothing else has."""
        return f"{PREFIX}{hint}.{next(self._count)}"

    @staticmethod
    def is_own(node: ir.Node) -> bool:
        """Whether a builder made the node."""
        return (node.name or "").startswith(PREFIX)

    def value(self, hint: str, like: ir.Value | None = None) -> ir.Value:
        """Return a new value without producer, an input of a subgraph, typed as ``like``."""
        value = ir.Value(name=self.name(hint))
        if like is not None:
            value.shape, value.type = like.shape, like.type
        return value

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append one node and return its only output."""
        return self.op_many(op_type, inputs, 1, **attributes)[0]

    def op_many(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Append one node and return its outputs."""
        name = self.name(op_type)
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = name if index == 0 else f"{name}.{index}"
        self.graph.append(node)
        return node.outputs

    def turned(self, value: ir.Value) -> ir.Value:
        """Return a matrix with its two axes exchanged; turning back gives the value itself."""
        node = value.producer()
        if node is not None and self.is_own(node) and node.op_type == "Transpose":
            source = node.inputs[0]
            if source is not None and list(node.attributes.get_ints("perm") or ()) == [1, 0]:
                return source
        turn = lambda: self.op("Transpose", value, perm=[1, 0])  # noqa: E731
        made = self.once("turned", value, turn)
        if made.dtype is None:
            made.type = value.type
        return made

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """Append a node like ``node`` with other inputs; return its first output."""
        kept = {name: attribute.value for name, attribute in node.attributes.items()}
        return self.op_many(node.op_type, inputs, 1, node.domain, **kept)[0]

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
            tensor = ir.tensor(array, name=self.name("constant"))
            value = ir.Value(
                name=tensor.name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self._constants[key] = value
        value = self._constants[key]
        if value.name not in self.root.initializers:  # it may have been dropped as unused
            self.root.register_initializer(value)
        return value

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

    def positions(self, value: ir.Value) -> ir.Value:
        """Return the number of spatial positions, as a scalar of the value's own type."""
        kind = value.dtype or ir.DataType.FLOAT
        lengths = list(value.shape or ())[2:]
        known = [d for d in lengths if isinstance(d, int)]
        if len(known) == len(lengths):
            return self.constant(float(np.prod(known)), kind)
        return self.op("Cast", self.op("ReduceProd", self.space(value), keepdims=0), to=kind)

    def repeat(self, value: ir.Value, times: Sequence[int]) -> ir.Value:
        """Repeat each element of ``[B, C, H, W]`` along both spatial axes."""
        result = self.op(
            "Resize",
            value,
            None,
            self.constant(np.array([1, 1, *times], np.float32)),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        sizes = dims(value)
        if sizes is not None and all(isinstance(d, int) for d in sizes[2:]):
            longer = [int(d or 0) * n for d, n in zip(sizes[2:], times, strict=True)]
            result.shape, result.type = ir.Shape([*sizes[:2], *longer]), value.type
        return result

    def scaled(self, value: ir.Value, channels: int, scale: float, shift: float = 0.0) -> ir.Value:
        """Return ``scale * value + shift`` of ``[N, C, H, W]`` in float32.

        It is a depthwise convolution, which keeps ONNX Runtime's blocked layout.
        """
        kind = ir.DataType.FLOAT
        weight = self.constant(np.full([channels, 1, 1, 1], scale), kind)
        bias = [self.constant(np.full(channels, shift), kind)] if shift else []
        return self.op("Conv", value, weight, *bias, group=channels, kernel_shape=[1, 1])

    def sum(self, value: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Sum over constant axes; without axes return the value itself."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.ints(*axes), keepdims=int(keepdims))

    def mean(self, value: ir.Value, axes: Sequence[int], keepdims: bool = False) -> ir.Value:
        """Average over constant axes; without axes return the value itself."""
        if not axes:
            return value
        return self.reduced("ReduceMean", value, axes, keepdims)

    def reduced(
        self, op_type: str, value: ir.Value, axes: Sequence[int], keepdims: bool = False
    ) -> ir.Value:
        """Append ReduceMean, ReduceMax, ReduceMin or ReduceL1 over constant axes."""
        if self.opset >= 18:
            return self.op(op_type, value, self.ints(*axes), keepdims=int(keepdims))
        return self.op(op_type, value, axes=list(axes), keepdims=int(keepdims))
