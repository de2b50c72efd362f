"""Find attention: where one place of a tensor comes to depend on all others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, depends_on, leads_to
from onnxcam.surgeon.find.layouts import Layouts

_BETWEEN = Trait.PASSES | Trait.RESHAPES | Trait.ELEMENTWISE | Trait.QUANTIZES
_PRODUCTS = ("MatMul", "Einsum", "FusedMatMul", "QLinearMatMul", "Gemm")
_FAR = 50  # values looked at


def attention(graph: ir.Graph, after: ir.Value, score: ir.Value) -> list[ir.Node]:
    """Return the nodes between a layer and the score in which attention mixes places.

    A Softmax is attention where it weighs a sum of computed values; over classes it is not.
    """
    path = depends_on(graph, {after}) & leads_to(score)
    return [
        n
        for n in graph
        if has(n, Trait.MIXES)
        and n.outputs[0] in path
        and (not has(n, Trait.SQUASHES) or _weighs(n.outputs[0]))
    ]


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


def _weighs(weights: ir.Value) -> bool:
    """Whether a matrix product of weights and something computed follows."""

    def moves(node: ir.Node) -> bool:
        products = node.op_type in _PRODUCTS
        return not products and (node.op_type == "Transpose" or has(node, _BETWEEN))

    return any(
        node.op_type in _PRODUCTS
        and all(v is value or constant(v) is None for v in node.inputs[:2])
        for value, node in _readers(weights, moves)
    )


def _is_read_by_linear(value: ir.Value) -> bool:
    """Whether a linear layer reads the value, perhaps in windows: queries, keys, values."""

    def moves(node: ir.Node) -> bool:
        shifts = node.op_type in ("Transpose", "Concat", "Slice", "Pad")
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
