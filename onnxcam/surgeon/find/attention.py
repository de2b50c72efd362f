"""Find attention: where one place of a tensor comes to depend on all others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, depends_on, dims, leads_to
from onnxcam.surgeon.find.layouts import NORMS, Layouts

_BETWEEN = Trait.PASSES | Trait.RESHAPES | Trait.ELEMENTWISE | Trait.QUANTIZES | Trait.MOVES
_PRODUCTS = ("MatMul", "Einsum", "FusedMatMul", "QLinearMatMul", "Gemm")
_FAR = 50  # values looked at


def attention(graph: ir.Graph, after: ir.Value, score: ir.Value) -> list[ir.Node]:
    """Return the nodes between a layer and the score in which attention mixes places.

    A Softmax is attention where a matrix product with something computed sums over its axis, and
    that is not the images' axis. Over classes, experts or what else is left once the places were
    averaged, it is not.
    """
    path = depends_on(graph, {after}) & leads_to(score)
    images = (dims(after) or [None])[0]
    found = [n for n in graph if has(n, Trait.MIXES) and n.outputs[0] in path]
    if not found:
        return []
    apart = _before_pooling(graph, after)

    def mixes(node: ir.Node) -> bool:
        if not has(node, Trait.SQUASHES):
            return any(v in apart for v in node.inputs)
        weights = node.outputs[0]
        sizes = dims(weights) or []
        newer = graph.opset_imports.get("", 13) >= 13  # else all axes from one on
        axis = node.attributes.get_int("axis", -1 if newer else 1)
        from_end = axis - len(sizes) if axis >= 0 else axis
        if sizes and from_end == -len(sizes) and sizes[0] == images:
            return False
        summed = from_end if sizes and (newer or from_end == -1) else None
        return any(any(v in apart for v in n.inputs) for n in _products(weights, summed))

    return [n for n in found if mixes(n)]


def attended(last: ir.Node, layouts: Layouts) -> ir.Value | None:
    """Return the tokens, or maps with channels last, that an attention node's queries are made of.

    In a transformer with normalisation first, the usual kind, that is the block's first
    normalisation.
    """
    unknown: ir.Value | None = None  # tokens whose grid is not known
    queue, seen = deque(v for v in last.inputs if v is not None), set[ir.Value]()
    while queue:
        value = queue.popleft()
        if value in seen:
            continue
        seen.add(value)
        kind = layouts.kinds.get(value)
        if kind is not None and _is_read_by_linear(value):
            if layouts.of(value) is not None:
                return value
            unknown = unknown or value
        node = value.producer()
        if node is not None:
            queue.extend(v for v in node.inputs if v is not None and constant(v) is None)
    return unknown


def _before_pooling(graph: ir.Graph, after: ir.Value) -> set[ir.Value]:
    """Return what depends on a layer's places one by one: not only on sums over all of them."""
    found = {after}
    for node in graph:
        if not _pools(node) and any(v in found for v in node.inputs):
            found |= set(node.outputs)
    return found


def _pools(node: ir.Node) -> bool:
    """Whether every place of maps or tokens goes into one number a channel."""
    if has(node, Trait.POOLS):
        after = dims(node.outputs[0]) or []
        return len(after) > 2 and all(d == 1 for d in after[2:])
    if not node.op_type.startswith("Reduce"):
        return False
    rank = len(dims(node.inputs[0]) or [] if node.inputs[0] else [])
    listed: Sequence[int] = node.attributes.get_ints("axes") or ()
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        listed = () if given is None else given.tolist()
    axes = {a % rank for a in listed} if rank else set()
    return rank > 2 and (axes >= set(range(1, rank - 1)) or axes >= set(range(2, rank)) != {2})


def _products(weights: ir.Value, axis: int | None) -> Iterator[ir.Node]:
    """Yield matrix products of weights with something computed that sum over an axis of theirs.

    The axis counts from the end; ``None`` where it is not known, and any sum may be over it.
    """
    queue, steps = deque([(weights, axis)]), 0
    while queue and steps < _FAR:
        (value, axis), steps = queue.popleft(), steps + 1
        for node in value.consumers():
            if node.op_type in _PRODUCTS:
                operands = node.inputs[:4:3] if node.op_type.startswith("QL") else node.inputs[:2]
                summed = {0: -1, 1: -2}[operands.index(value)] if value in operands else axis
                known = axis is not None and node.op_type in ("MatMul", "QLinearMatMul")
                computed = all(v is value or (v and constant(v) is None) for v in operands)
                if computed and (not known or summed == axis):
                    yield node
            elif node.op_type == "Transpose" or has(node, _BETWEEN):
                queue.append((node.outputs[0], _moved(axis, node)))


def _moved(axis: int | None, node: ir.Node) -> int | None:
    """Return which axis of a node's output an axis of its input is, from the end."""
    before, after = (len(dims(v) or []) if v else 0 for v in (node.inputs[0], node.outputs[0]))
    if node.op_type == "Transpose":
        perm = list(node.attributes.get_ints("perm") or range(before)[::-1])
        return perm.index(axis + before) - before if axis is not None and before else None
    changed = has(node, Trait.RESHAPES) or (has(node, Trait.MOVES) and before != after)
    return None if changed else axis


def _is_read_by_linear(value: ir.Value) -> bool:
    """Whether a linear layer reads the value, perhaps in windows: queries, keys, values."""

    def moves(node: ir.Node) -> bool:
        shifts = node.op_type in ("Transpose", "Concat", "Slice", "Pad", *NORMS)
        return shifts or has(node, Trait.MOVES | Trait.RESHAPES | Trait.QUANTIZES)

    return any(
        node.op_type in (*_PRODUCTS, "Attention")
        and len(node.inputs) > 1
        and constant(node.inputs[1]) is not None
        for _, node in _readers(value, moves)
    )


def _readers(
    value: ir.Value, moves: Callable[[ir.Node], bool]
) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Yield what reads a value, and what reads it behind nodes that only move it."""
    queue, steps = deque([value]), 0
    while queue and steps < _FAR:
        one, steps = queue.popleft(), steps + 1
        for node in one.consumers():
            yield one, node
            if moves(node):
                queue.append(node.outputs[0])
