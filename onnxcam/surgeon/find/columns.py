"""How many numbers of a detector's rows are scores, where keypoints or masks follow them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import dims

_BOX = 4


def score_columns(value: ir.Value, numbers: int) -> int | None:
    """Return how many of a row's numbers are scores, ``None`` where the graph does not tell.

    A row is a box of four numbers, then scores, which are squashed, then what else a box has:
    keypoints, an angle, coefficients of a mask.

    Args:
        value: the output, which joins boxes and scores.
        numbers: the length of its rows.
    """
    place, scores = 0, 0
    for length, squashed in _parts(value, numbers):
        if place < _BOX:
            if place + length > _BOX:
                return None
        elif squashed:
            scores += length
        else:
            break
        place += length
    return scores or None


def _parts(value: ir.Value, numbers: int) -> Iterator[tuple[int, bool]]:
    """Yield the length of each part that rows are joined of, and whether it is squashed."""
    joins = _joins(value, numbers)
    if joins is None:
        return
    axis = _axis(joins) or 0
    for part in joins.inputs:
        shape = [] if part is None else dims(part) or []
        length = shape[axis] if -len(shape) <= axis < len(shape) else None
        if part is None or not isinstance(length, int):
            return
        inner = part.producer()
        along = _axis(inner)
        if along is not None and (along - axis) % len(shape) == 0:
            yield from _parts(part, length)
        else:
            yield length, _squashed(part)


def _axis(node: ir.Node | None) -> int | None:
    """Return the axis along which a node joins tensors, ``None`` where it is another node."""
    joins = node is not None and node.op_type == "Concat"
    return node.attributes.get_int("axis", 0) if node is not None and joins else None


def _joins(value: ir.Value, numbers: int) -> ir.Node | None:
    """Return the node that joins rows of so many numbers, of the first scale if there are more."""
    node = value.producer()
    while node is not None:
        if node.op_type == "Concat":
            axis, shape = _axis(node) or 0, dims(node.outputs[0]) or []
            if -len(shape) <= axis < len(shape) and shape[axis] == numbers:
                return node
        elif not has(node, Trait.MOVES | Trait.RESHAPES | Trait.PASSES):
            return None
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return None


def _squashed(value: ir.Value) -> bool:
    """Whether a part is made of probabilities, perhaps moved."""
    node = value.producer()
    while node is not None and has(node, Trait.MOVES | Trait.RESHAPES | Trait.PASSES):
        if node.op_type == "Concat":
            return False
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node is not None and has(node, Trait.SQUASHES)
