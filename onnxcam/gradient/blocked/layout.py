"""Rewrite a gradient so that ONNX Runtime on CPU can keep images in its blocked layout.

Its convolutions work on blocks of 8 or 16 channels (``[N, C/16, H, W, 16]``). Between them it
keeps that layout through pooling, ``Relu``, ``Sigmoid`` and ``Tanh``, and through ``Add``, ``Mul``
and ``Concat`` if every operand has it. Any other operator costs a conversion before and one
after. So operands without that layout enter it through a depthwise 1x1 convolution, and a slice
of a convolution's channels is computed as a convolution of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with

from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims

BLOCK = 16  # channels that convolutions compute at once
_ALIGNED = 4  # the runtime blocks only multiples of this many channels


def keep_blocked(builder: Builder, nodes: Sequence[ir.Node]) -> None:
    """Rewrite ``nodes``, which compute a gradient in float32."""
    nodes = [n for n in nodes if not n.outputs[0].is_graph_output()]
    for node in nodes:
        if node.op_type == "Slice":
            _slice_weights(builder, node)
    known: dict[ir.Value, bool] = {}
    own = set(nodes)
    for node in [n for n in builder.graph if n.op_type == "Mul" and n not in own]:
        if any(v is not None and _is_point(v) for v in node.inputs):  # a gate of the network
            _enter(builder, node, known)
    for node in nodes:
        if node.op_type in ("Add", "Mul", "Sum"):
            _enter(builder, node, known)
        if node.op_type == "Add":
            _broadcast(node)
        if node.op_type == "ReduceSum":
            _average(builder, node, known)
    builder.graph.sort()  # what was added is at the end


def _slice_weights(builder: Builder, node: ir.Node) -> None:
    """Replace a slice of a convolution's channels by a convolution of these channels alone."""
    value = node.inputs[0]
    made = value.producer() if value is not None else None
    if value is None or made is None or made.op_type != "Conv" or len(made.inputs) > 2:
        return
    if made.attributes.get_int("group", 1) != 1 or len(dims(value) or []) != 4:
        return
    if len(node.inputs) != 4 or any(use.node.op_type != "Slice" for use in value.uses()):
        return  # all channels are needed as well
    _, starts, ends, axes = node.inputs
    stored = [constant(v) for v in (starts, ends, axes)]
    if any(v is None for v in stored) or [a % 4 for a in stored[2].tolist()] != [1]:  # type: ignore[union-attr]
        return
    weight = builder.op("Slice", made.inputs[1], starts, ends, builder.ints(0))
    kept = {name: a.value for name, a in made.attributes.items()}
    conv = builder.op("Conv", made.inputs[0], weight, **kept)
    replace_all_uses_with(node.outputs[0], shaped(conv, node.outputs[0]))


def _enter(builder: Builder, node: ir.Node, known: dict[ir.Value, bool]) -> None:
    """Convert a node's operands to blocks of full spatial size, if some operand has them."""
    operands = [v for v in node.inputs if v is not None]
    blocked = [v for v in operands if not _is_point(v) and is_blocked(v, known)]
    sizes = dims(blocked[0]) if blocked else None
    if sizes is None or len(blocked) == len(operands):
        return
    points = {v: point for v in operands if (point := _point_of(v, sizes)) is not None}
    if any(v not in points and dims(v) != sizes for v in operands):
        return
    channels = int(sizes[1])  # type: ignore[arg-type]
    for index, value in enumerate(operands):
        if value in blocked:
            continue
        copy = points.get(value, value)
        if not is_blocked(copy, known):
            copy = shaped(builder.scaled(copy, channels, 1.0), copy)
        if value in points:
            copy = builder.repeat(copy, [int(n) for n in sizes[2:] if isinstance(n, int)])
        node.replace_input_with(index, copy)
        known[copy] = True


def _is_point(value: ir.Value) -> bool:
    return (dims(value) or [])[2:] == [1, 1]


def _point_of(value: ir.Value, sizes: Sequence[int | str | None]) -> ir.Value | None:
    """Return the ``[N, C, 1, 1]`` that a value is or repeats over all positions, if any."""
    made = value.producer()
    if made is not None and made.op_type == "Expand" and made.inputs[0] is not None:
        if dims(value) != sizes:
            return None  # the other operands broadcast to it
        value = made.inputs[0]
    if not all(isinstance(n, int) and n > 0 for n in sizes[2:]) or constant(value) is not None:
        return None  # the runtime would fold it, and store it in full size
    return value if is_aligned(value) and dims(value) == [*sizes[:2], 1, 1] else None


def _broadcast(node: ir.Node) -> None:
    """Let Add broadcast an operand instead of expanding it first."""
    for index in (0, 1):
        value, other = node.inputs[index], node.inputs[1 - index]
        made = value.producer() if value is not None else None
        if made is None or other is None or made.op_type != "Expand":
            continue
        sizes = dims(other)
        if sizes is not None and None not in sizes and sizes == dims(node.outputs[0]):
            node.replace_input_with(index, made.inputs[0])
            return


def _average(builder: Builder, node: ir.Node, known: dict[ir.Value, bool]) -> None:
    """Replace a sum over space by an average times its count, which works on blocks."""
    value, axes = node.inputs[0], constant(node.inputs[1] if len(node.inputs) > 1 else None)
    sizes = dims(value) if value is not None else None
    if value is None or axes is None or sizes is None or not is_blocked(value, known):
        return
    spatial = sorted(a % 4 for a in axes.tolist()) == [2, 3]
    if not spatial or not node.attributes.get_int("keepdims", 1):
        return
    if not all(isinstance(n, int) and n > 0 for n in sizes[1:]):
        return
    channels, height, width = (int(n) for n in sizes[1:] if isinstance(n, int))
    total = node.outputs[0]
    average = shaped(builder.op("GlobalAveragePool", value), total)
    replace_all_uses_with(total, shaped(builder.scaled(average, channels, height * width), total))


def is_blocked(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    """Whether the runtime keeps the value in blocks."""
    stack = [value]
    while stack:
        top = stack[-1]
        unknown = [v for v in _decisive(top) if v not in known]
        if unknown:
            stack += unknown
            continue
        stack.pop()
        known[top] = is_aligned(top) and _makes_blocks(top, known)
    return known[value]


def _decisive(value: ir.Value) -> list[ir.Value]:
    """Return the operands whose layout decides that of a result."""
    node = value.producer()
    if node is None or not (
        has(node, Trait.KEEPS_BLOCKS) or node.op_type in ("Concat", "Clip", "Resize")
    ):
        return []
    first = node.op_type in ("BatchNormalization", "Clip", "Resize")
    return [v for v in (node.inputs[:1] if first else node.inputs) if v is not None]


def _makes_blocks(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "Conv":
        return _conv_is_blocked(node)
    if has(node, Trait.POOLS):
        return len(node.outputs) == 1
    operands = _decisive(value)
    if not operands or not all(known[v] for v in operands):
        return False
    if node.op_type == "Concat":
        channels = [(dims(v) or [None, None])[1] for v in operands]
        aligned = all(isinstance(n, int) and n % BLOCK == 0 for n in channels)
        return aligned and node.attributes.get_int("axis", 0) == 1
    if node.op_type == "Clip":  # merged into the convolution before it
        made = operands[0].producer()
        return made is not None and made.op_type == "Conv" and len(operands[0].uses()) == 1
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return all(dims(v) == dims(operands[0]) for v in operands)


def _conv_is_blocked(node: ir.Node) -> bool:
    source, weight = node.inputs[0], node.inputs[1]
    shape = dims(source) if source is not None else None
    kernel = dims(weight) if weight is not None else None
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return False
    group = node.attributes.get_int("group", 1) or 1
    if group == 1:
        return shape[1] < BLOCK or shape[1] % _ALIGNED == 0
    depthwise = group == shape[1] and kernel is not None and kernel[0] == group
    return depthwise or shape[1] // group % BLOCK == 0


def is_aligned(value: ir.Value) -> bool:
    """Whether a value's shape and type allow blocks."""
    sizes = dims(value)
    if sizes is None or len(sizes) != 4 or value.dtype != ir.DataType.FLOAT:
        return False
    return None not in sizes and isinstance(sizes[1], int) and sizes[1] % _ALIGNED == 0
