"""Leave out the axis ``T`` where it is known to be 1.

``[1, N, C, H, W]`` has one axis more than runtimes expect of images: ONNX Runtime's own layout
of them takes four.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with

from onnxcam.gradient.appended import infer_appended
from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims

_AXES = {"ReduceSum": 1, "Slice": 3}  # which operand says the axes
_RANK = 5  # of T beside a batch of images


def drop_t(builder: Builder, nodes: Sequence[ir.Node]) -> None:
    """Have elementwise operators, sums and slices among ``nodes`` compute ``[N, C, H, W]``."""
    infer_appended(builder, nodes)
    for node in nodes:
        if node.op_type == "Squeeze":
            _cancel(node)
        elif _has_rows(node.outputs[0]):
            if has(node, Trait.ELEMENTWISE):
                _leave_out(builder, node, _operands(node))
            elif _settled(builder, node):
                _leave_out(builder, node, [0])
    builder.graph.sort()  # what was added is at the end


def _has_rows(value: ir.Value | None) -> bool:
    sizes = dims(value) if value is not None else None
    return sizes is not None and len(sizes) == _RANK and sizes[0] == 1


def _operands(node: ir.Node) -> list[int]:
    """Return which operands have the axis; none where one may have it or not."""
    shapes = [dims(v) for v in node.inputs if v is not None]
    places = [i for i, v in enumerate(node.inputs) if _has_rows(v)]
    unclear = any(s is None or (len(s) == _RANK and s[0] != 1) for s in shapes)
    return [] if unclear else places


def _settled(builder: Builder, node: ir.Node) -> bool:
    """Settle axes or shape for one axis less, where that can be done."""
    if not _has_rows(node.inputs[0]):
        return False
    if node.op_type == "Expand":
        shape = constant(node.inputs[1])
        if shape is None or len(shape) != _RANK:
            return False
        node.replace_input_with(1, builder.ints(*shape[1:].tolist()))
        return True
    place = _AXES.get(node.op_type, len(node.inputs))
    axes = constant(node.inputs[place]) if place < len(node.inputs) else None
    if axes is None or any(a % _RANK == 0 for a in axes):
        return False
    node.replace_input_with(place, builder.ints(*(a - 1 if a > 0 else a for a in axes.tolist())))
    return True


def _leave_out(builder: Builder, node: ir.Node, places: Sequence[int]) -> None:
    """Take the axis from the operands in ``places``, and give it back after the node."""
    if not places:
        return
    for index in places:
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
    if made is not None and _adds_first(made):
        assert made.inputs[0] is not None
        return made.inputs[0]
    squeezed = builder.op("Squeeze", value, builder.ints(0))
    squeezed.shape, squeezed.type = ir.Shape(value.shape[1:]), value.type  # type: ignore[index]
    return squeezed


def _adds_first(node: ir.Node) -> bool:
    return node.op_type == "Unsqueeze" and _is_first(node.inputs[1])


def _is_first(axes: ir.Value | None) -> bool:
    known = constant(axes)
    return known is not None and known.tolist() == [0]


def _cancel(node: ir.Node) -> None:
    """Read what an axis was added to, where it is taken away again."""
    value = node.inputs[0]
    made = value.producer() if value is not None else None
    if made is None or not _adds_first(made) or not _is_first(node.inputs[1]):
        return
    before = made.inputs[0]
    assert before is not None
    replace_all_uses_with(node.outputs[0], before)
