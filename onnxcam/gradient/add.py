"""Add the gradient of one tensor of a graph with respect to others."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient import rules as rules  # registers them
from onnxcam.gradient.appended import appended, last_node
from onnxcam.gradient.backward import Backward, Where, length_of_t
from onnxcam.gradient.overrides.base import Override, changes, laid_over
from onnxcam.gradient.registry import find_rule
from onnxcam.gradient.walker import path_nodes, pull_back
from onnxcam.gradient.widen import widen
from onnxcam.graph.builder import Builder
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import dims, leads_to, reads
from onnxcam.model.opset import BASE_OPSET

_BFLOAT16 = 22  # the opset from which on all operators that rules use take it


def add_gradient(
    builder: Builder,
    of: ir.Value,
    seed: ir.Value,
    to: Sequence[ir.Value],
    *,
    overrides: Sequence[Override] = (),
    unclipped: frozenset[ir.Node] = frozenset(),
) -> list[ir.Value]:
    """Append the gradient of ``of`` with respect to each tensor of ``to``.

    Args:
        builder: appends to the graph that holds the tensors.
        of: the differentiated tensor, of shape ``S``.
        seed: its cotangents ``[T, *S]``.
        to: tensors that ``of`` is computed from.
        overrides: what differs from the derivative, see :mod:`onnxcam.gradient.overrides`.
        unclipped: quantizers that are read as if they had no range.

    Returns:
        For each tensor of ``to``, of shape ``P``, its cotangents ``[T, *P]``.

    Raises:
        NoGradientError: an operator on the path has no rule, or ``of`` does not depend on one
            of ``to`` in a differentiable way.
    """
    return walk_back(new_walk(builder, overrides, unclipped=unclipped), of, seed, to)


def new_walk(
    builder: Builder,
    overrides: Sequence[Override] = (),
    *,
    fixed_t: int | None = None,
    unclipped: frozenset[ir.Node] = frozenset(),
) -> Backward:
    """Return a walk that has not begun; see :class:`onnxcam.gradient.backward.Backward`."""
    find = laid_over(find_rule, overrides)
    other = changes(find_rule, overrides)
    return Backward(builder, find, other, fixed_t=fixed_t, unclipped=unclipped)


def walk_back(
    walk: Backward, of: ir.Value, seed: ir.Value, to: Sequence[ir.Value]
) -> list[ir.Value]:
    """As :func:`add_gradient`, by a walk that its caller has made and may ask afterwards."""
    made = []
    for value, g in zip(to, walk_where_it_leads(walk, of, seed, to), strict=True):
        if g is None:
            raise NoGradientError(
                f"'{of.name}' does not depend on '{value.name}' in a differentiable way, so "
                f"there is no gradient between them.{_why_none(walk.builder.graph, of, value)}"
            )
        made.append(g)
    return made


def walk_where_it_leads(
    walk: Backward, of: ir.Value, seed: ir.Value, to: Sequence[ir.Value]
) -> list[ir.Value | None]:
    """As :func:`walk_back`, with ``None`` for what ``of`` does not depend on differentiably."""
    builder = walk.builder
    nodes, last = list(builder.graph), last_node(builder.graph)
    walk.places = places(path_nodes(nodes, [of], to))
    walk.length = length_of_t(builder, seed)
    counting = appended(builder.graph, last)
    found = pull_back(walk, nodes, {of: seed}, to)
    reached = [n for n, g in enumerate(found) if g is not None]
    for n in reached:
        if 0 in (dims(to[n]) or ()):
            found[n] = _empty(builder, walk.length, to[n])
    if not walk.length.uses():
        builder.graph.remove(counting, safe=True)
        walk.length = None
    made = [g for g in found if g is not None]
    wide = widen(builder, appended(builder.graph, last), made, [to[n] for n in reached])
    for n, g in zip(reached, wide, strict=True):
        found[n] = g
    return found


def _empty(builder: Builder, T: ir.Value, value: ir.Value) -> ir.Value:
    """Return the gradient of what has no elements.

    Where operators give it, ONNX Runtime may take an axis of length 0 for one of length 1.
    """
    shape = builder.op("Concat", T, builder.op("Shape", value), axis=0)
    return builder.op("Expand", builder.constant(0.0, value.dtype), shape)


def places(path: Sequence[ir.Node]) -> dict[ir.Node, Where]:
    """Return where each node of a path lies, in its order."""
    before: dict[ir.Value, int] = {}  # the most linear operators on a way to a value
    counts = []
    for node in path:
        count = max((before.get(v, 0) for v in reads(node)), default=0)
        counts.append(count)
        before |= dict.fromkeys(node.outputs, count + has(node, Trait.LINEAR))
    most = max(before.values(), default=0)
    linear_after: set[ir.Value] = set()  # what a linear operator is computed from
    for node in reversed(path):
        if has(node, Trait.LINEAR) or not linear_after.isdisjoint(node.outputs):
            linear_after.update(reads(node))
    return {
        node: Where(count == 0, linear_after.isdisjoint(node.outputs), count / max(most, 1))
        for node, count in zip(path, counts, strict=True)
    }


def _why_none(graph: ir.Graph, of: ir.Value, to: ir.Value) -> str:
    """Name the operators at which the gradient stopped."""
    on_path = path_nodes(list(graph), [of], [to])
    carrying = {to} | {o for n in on_path for o in n.outputs}
    stopped: dict[str, str] = {}
    for node in on_path:
        found = find_rule(node)
        why = None if found is None else found.why_none(node, carrying)
        if why is not None:
            stopped[node.op_type] = why
    if stopped:
        return "".join(f" {op_type} passes none: {why}." for op_type, why in stopped.items())
    if to in leads_to(of):
        return " One reaches the other through integers and comparisons only, which are flat."
    return f" '{of.name}' is computed without it."


def missing_rules(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> list[ir.Node]:
    """Return the nodes between ``to`` and ``of`` whose operator has no rule."""
    return [n for n in path_nodes(list(graph), [of], to) if find_rule(n) is None]


def needed_opset(
    graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value], overrides: Sequence[Override] = ()
) -> int:
    """Return the opset that the rules on the path need."""
    nodes = path_nodes(list(graph), [of], to)
    find = laid_over(find_rule, overrides)
    pairs = ((find(n, Where()), n) for n in nodes)
    needed = max((r.needed(n) for r, n in pairs if r is not None), default=BASE_OPSET)
    halves = any(v.dtype == ir.DataType.BFLOAT16 for n in nodes for v in n.outputs)
    return max(needed, _BFLOAT16) if halves else needed
