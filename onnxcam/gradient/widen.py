"""Compute the gradient of bfloat16 tensors in float32.

The standard's operators take bfloat16 from opset 22 on, but ONNX Runtime on CPU lacks the bfloat16
kernels of many: 1.32 has none of Expand, Div and ReduceSum.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.graph.values import subgraphs

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def widen(
    builder: Builder,
    nodes: Sequence[ir.Node],
    gradients: Sequence[ir.Value],
    to: Sequence[ir.Value],
) -> list[ir.Value]:
    """Let ``nodes``, which compute gradients, read bfloat16 tensors as float32 and compute in it.

    Returns:
        The ``gradients`` in the type of the tensors ``to``.
    """
    made: set[ir.Value] = set()
    wide: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        _widen(builder, node, node, made, wide)
    return [
        builder.op("Cast", g, to=_NARROW) if value.dtype == _NARROW and g in made else g
        for g, value in zip(gradients, to, strict=True)
    ]


def _widen(
    builder: Builder,
    node: ir.Node,
    outer: ir.Node,
    made: set[ir.Value],
    wide: dict[ir.Value, ir.Value],
) -> None:
    """Widen one node; ``outer`` is the node of the main graph that is or contains it."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == _NARROW and value not in made:
            node.replace_input_with(index, _as_wide(builder, value, outer, wide))
    to = node.attributes.get("to")
    if node.op_type == "Cast" and to is not None and to.value == _NARROW:
        node.attributes["to"] = ir.AttrInt64("to", _WIDE)
    for graph in subgraphs(node):
        for value in graph.inputs:
            _retype(value, made)
        for inner in graph:
            _widen(builder, inner, outer, made, wide)
        for index, value in enumerate(graph.outputs):
            if value.dtype == _NARROW and value not in made:
                graph.outputs[index] = _as_wide(builder, value, outer, wide)
    for value in node.outputs:
        _retype(value, made)


def _retype(value: ir.Value, made: set[ir.Value]) -> None:
    if value.dtype == _NARROW:
        value.type = ir.TensorType(_WIDE)  # a new one: types are shared
    made.add(value)


def _as_wide(
    builder: Builder, value: ir.Value, before: ir.Node, wide: dict[ir.Value, ir.Value]
) -> ir.Value:
    if value not in wide:
        cast = builder.op("Cast", value, to=_WIDE)
        cast.shape, cast.dtype = value.shape, _WIDE
        node = cast.producer()
        assert node is not None
        builder.graph.remove(node)
        builder.graph.insert_before(before, node)
        wide[value] = cast
    return wide[value]
