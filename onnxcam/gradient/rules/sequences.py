"""Sequences of tensors that are made and read in the same graph, and optional values.

The cotangent of a sequence is a tensor. If the sequence was split from a tensor, it is that
tensor's cotangent, ``[T, *S]``. If it was constructed from items, it is their cotangents, flattened
and concatenated, ``[T, elements]``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.helpers.lengths import (
    Length,
    combine,
    given,
    length,
    reshape,
    vector,
    volume,
)
from onnxcam.gradient.registry import rule, stop

_SOURCE = "its sequence comes from {}, so that its items are not known"
_ALONG = "it joins the parts of a split along another axis"
_REFUSES = (_SOURCE, must_be_known("positions"))
_END = np.iinfo(np.int64).max
_PASSES_ON = ("Identity", "Optional", "OptionalGetElement")


def _source(sequence: ir.Value) -> ir.Node | None:
    """Return the node that made a sequence, looking through nodes that pass it on."""
    node = sequence.producer()
    while node is not None and node.op_type in _PASSES_ON and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _made_by(value: ir.Value, op_type: str) -> ir.Node | None:
    node = _source(value)
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _items(c: Call, sequence: ir.Value) -> list[ir.Value]:
    """Return the items that a sequence was constructed from."""
    node = _source(sequence)
    if node is not None and node.op_type == "SequenceConstruct":
        return [v for v in node.inputs if v is not None]
    if node is not None and node.op_type == "SequenceEmpty":
        return []
    if node is not None and node.op_type in ("SequenceInsert", "SequenceErase"):
        maker = Call(node, c.walk, c.refuses)
        items = _items(c, maker.x(0))
        if node.op_type == "SequenceInsert":
            items.insert(_position(maker, 2, len(items)), maker.x(1))
        else:
            del items[_position(maker, 1, -1)]
        return items
    source = "outside" if node is None else node.op_type
    raise c.refuse(_SOURCE, source)


def _position(c: Call, index: int, default: int) -> int:
    position = c.optional(index, "positions")
    return default if position is None else int(position.item())


def _span(c: Call, items: list[ir.Value], index: int) -> tuple[Length, Length]:
    """Return where an item's elements start and end among those of all items."""
    volumes = [volume(c, item) for item in items[: index + 1]]
    start = combine(c, "Add", 0, *volumes[:-1])
    return start, combine(c, "Add", start, volumes[-1])


def _piece(c: Call, g: ir.Value, items: list[ir.Value], index: int) -> ir.Value:
    """Slice the cotangent of one item out of that of the sequence."""
    start, end = _span(c, items, index)
    flat = c.op("Slice", g, vector(c, start), vector(c, end), c.builder.ints(1))
    return c.split_t(flat, items[index])


def _at(c: Call, g: ir.Value) -> ir.Value:
    """Pad the cotangent of one item with zeros to that of the sequence."""
    sequence = c.x(0)
    split = _made_by(sequence, "SplitToSequence")
    if split is not None:
        return _at_split(c, g, split)
    items = _items(c, sequence)
    index = int(c.known(1, "positions").item()) % len(items)
    start, end = _span(c, items, index)
    _, last = _span(c, items, len(items) - 1)
    flat = c.op("Reshape", g, c.builder.ints(0, -1))
    return c.op("Pad", flat, vector(c, 0, start, 0, combine(c, "Sub", last, end)))


def _at_split(c: Call, g: ir.Value, split: ir.Node) -> ir.Value:
    parent = Call(split, c.walk, c.refuses)
    x = parent.x(0)
    axis, rank = int(parent.attribute("axis", 0)) % c.rank(x), c.rank(x)
    if not _keeps(parent):
        g = c.op("Unsqueeze", g, c.builder.ints(axis + 1))
    size = length(c, c.y, axis) if _keeps(parent) else 1
    start = _start(c, parent, axis)
    pads: list[Length] = [0] * (2 * rank + 2)
    pads[axis + 1] = start
    pads[rank + axis + 2] = combine(c, "Sub", length(c, x, axis), start, size)
    return c.op("Pad", g, vector(c, *pads))


def _keeps(split: Call) -> bool:
    """Whether the parts keep the axis that was split."""
    return split.operand(1) is not None or bool(split.attribute("keepdims", 1))


def _start(c: Call, split: Call, axis: int) -> Length:
    """Return where the part that a SequenceAt reads begins."""
    position, sizes = given(c, 1), split.operand(1)
    if sizes is not None and c.rank(sizes) == 1:
        lengths = c.op("Cast", sizes, to=ir.DataType.INT64)
        starts = c.op("CumSum", lengths, c.builder.constant(0), exclusive=1)
        return c.op("Gather", starts, vector(c, position), axis=0)
    whole = length(c, split.x(0), axis)
    size: Length = 1 if sizes is None else given(split, 1)
    if not isinstance(position, int) or position < 0:
        rounded = combine(c, "Sub", combine(c, "Add", whole, size), 1)
        count = combine(c, "Div", rounded, size)
        position = c.op(
            "Mod", vector(c, position), vector(c, count)
        )  # a negative position counts from the end
    return combine(c, "Mul", position, size)


rule("SequenceAt", _at, None, refuses=_REFUSES)
rule("SplitToSequence", lambda c, g: g, None)
rule(
    "SequenceConstruct",
    variadic=lambda c, g, i: _piece(c, g, _items(c, c.y), i),
    refuses=_REFUSES,
)


def _inserted(c: Call) -> int:
    """Return the index of the new item."""
    return _position(c, 2, len(_items(c, c.y)) - 1)


def _insert_sequence(c: Call, g: ir.Value) -> ir.Value:
    """Remove the new item's cotangent."""
    start, end = (vector(c, n) for n in _span(c, _items(c, c.y), _inserted(c)))
    ints = c.builder.ints
    before = c.op("Slice", g, ints(0), start, ints(1))
    return c.op("Concat", before, c.op("Slice", g, end, ints(_END), ints(1)), axis=1)


rule(
    "SequenceInsert",
    _insert_sequence,
    lambda c, g: _piece(c, g, _items(c, c.y), _inserted(c)),
    refuses=_REFUSES,
)


def _erase(c: Call, g: ir.Value) -> ir.Value:
    """Insert zeros where the item was."""
    items, ints = _items(c, c.x(0)), c.builder.ints
    index = _position(c, 1, -1) % len(items)
    start = vector(c, _span(c, items, index)[0])
    erased = c.op("Concat", length_of_t(c.builder, g), vector(c, volume(c, items[index])), axis=0)
    before = c.op("Slice", g, ints(0), start, ints(1))
    after = c.op("Slice", g, start, ints(_END), ints(1))
    zero = c.builder.constant(0.0, items[index].dtype)
    return c.op("Concat", before, c.op("Expand", zero, erased), after, axis=1)


rule("SequenceErase", _erase, None, refuses=_REFUSES)


def _concat(c: Call, g: ir.Value) -> ir.Value:
    """Slice g along the joined axis into the items' cotangents."""
    axis, stacked = int(c.attribute("axis", 0)) % c.rank(c.y), bool(c.attribute("new_axis", 0))
    split = _made_by(c.x(0), "SplitToSequence")
    if split is not None:
        parent = Call(split, c.walk, c.refuses)
        same = int(parent.attribute("axis", 0)) % parent.rank(parent.x(0)) == axis
        if same and stacked != _keeps(parent):
            return g
        raise c.refuse(_ALONG)
    flat = []
    start: Length = 0
    for item in _items(c, c.x(0)):
        end = combine(c, "Add", start, 1 if stacked else length(c, item, axis))
        bounds = vector(c, start), vector(c, end), c.builder.ints(axis + 1)
        flat.append(reshape(c, c.op("Slice", g, *bounds), volume(c, item)))
        start = end
    return c.op("Concat", *flat, axis=1)


rule("ConcatFromSequence", _concat, refuses=[*_REFUSES, _ALONG])
rule("Optional OptionalGetElement", lambda c, g: g)
stop("OptionalHasElement", "it says whether there is a value")
stop("SequenceLength", "it counts")
stop("SequenceEmpty", "it holds nothing")
