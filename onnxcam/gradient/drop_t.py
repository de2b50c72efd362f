"""Drop the axis ``T`` where its length is known to be 1.

``[1, N, C, H, W]`` has one axis too many for ONNX Runtime's blocked layout of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with

from onnxcam.gradient.appended import infer_appended
from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims

_AXES = {"ReduceSum": 1, "Slice": 3}  # the operand that lists the axes
_RANK = 5  # of [T, N, C, H, W]


def drop_t(builder: Builder, nodes: Sequence[ir.Node]) -> None:
    """Let elementwise operators, sums and slices among ``nodes`` compute ``[N, C, H, W]``."""
    infer_appended(builder, nodes)
    for node in nodes:
        if node.op_type == "Squeeze":
            _cancel(node)
        elif node.outputs[0].is_graph_output():
            continue  # a run returns it with T
        elif _has_t(node.outputs[0]):
            if has(node, Trait.ELEMENTWISE):
                _drop(builder, node, _operands(node))
            elif _adapt(builder, node):
                _drop(builder, node, [0])
    builder.graph.sort()  # what was added is at the end


def _has_t(value: ir.Value | None) -> bool:
    sizes = dims(value) if value is not None else None
    return sizes is not None and len(sizes) == _RANK and sizes[0] == 1


def _operands(node: ir.Node) -> list[int]:
    """Return the indices of the operands that have ``T``; none if that is unclear for some."""
    shapes = [dims(v) for v in node.inputs if v is not None]
    indices = [i for i, v in enumerate(node.inputs) if _has_t(v)]
    unclear = any(s is None or (len(s) == _RANK and s[0] != 1) for s in shapes)
    return [] if unclear else indices


def _adapt(builder: Builder, node: ir.Node) -> bool:
    """Rewrite a node's axes or shape for operands without ``T``; return whether it can be."""
    if not _has_t(node.inputs[0]):
        return False
    if node.op_type == "Expand":
        shape = constant(node.inputs[1])
        if shape is None or len(shape) != _RANK:
            return False
        node.replace_input_with(1, builder.ints(*shape[1:].tolist()))
        return True
    index = _AXES.get(node.op_type, len(node.inputs))
    axes = constant(node.inputs[index]) if index < len(node.inputs) else None
    if axes is None or any(a % _RANK == 0 for a in axes):
        return False
    node.replace_input_with(index, builder.ints(*(a - 1 if a > 0 else a for a in axes.tolist())))
    return True


def _drop(builder: Builder, node: ir.Node, indices: Sequence[int]) -> None:
    """Drop ``T`` from the operands at ``indices``, and add it again after the node."""
    if not indices:
        return
    for index in indices:
        operand = node.inputs[index]
        assert operand is not None
        node.replace_input_with(index, _without(builder, operand))
    out = node.outputs[0]
    readers = [(use.node, use.idx) for use in out.uses()]
    again = shaped(builder.op("Unsqueeze", out, builder.ints(0)), out)
    out.shape = ir.Shape(out.shape[1:])  # type: ignore[index]
    for reader, index in readers:
        reader.replace_input_with(index, again)


def _without(builder: Builder, value: ir.Value) -> ir.Value:
    made = value.producer()
    if made is not None and _adds_t(made):
        assert made.inputs[0] is not None
        return made.inputs[0]
    squeezed = builder.op("Squeeze", value, builder.ints(0))
    squeezed.shape, squeezed.type = ir.Shape(value.shape[1:]), value.type  # type: ignore[index]
    return squeezed


def _adds_t(node: ir.Node) -> bool:
    return node.op_type == "Unsqueeze" and _is_first(node.inputs[1])


def _is_first(axes: ir.Value | None) -> bool:
    known = constant(axes)
    return known is not None and known.tolist() == [0]


def _cancel(node: ir.Node) -> None:
    """Skip an Unsqueeze that adds ``T`` and the Squeeze ``node`` that drops it again."""
    value = node.inputs[0]
    made = value.producer() if value is not None else None
    if made is None or not _adds_t(made) or not _is_first(node.inputs[1]):
        return
    before = made.inputs[0]
    assert before is not None
    replace_all_uses_with(node.outputs[0], before)
