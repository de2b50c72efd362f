"""The backward walk: from a seeded tensor to the tensors whose gradient is wanted.

Only nodes on a path between the two are visited. Contributions of several readers are added,
and broadcasting is undone, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient.builder import Builder
from onnxcam.gradient.registry import Call, Rule, find_rule
from onnxcam.surgeon.graph import describe, is_float, leads_to, reads


def add_gradient(
    builder: Builder, of: ir.Value, seed: ir.Value, to: Sequence[ir.Value]
) -> list[ir.Value]:
    """Append the gradient of ``of`` with respect to each tensor of ``to``.

    Args:
        builder: appends to the graph that holds the tensors.
        of: the differentiated tensor, of shape ``S``.
        seed: its cotangents ``[T, *S]``.
        to: tensors that ``of`` is computed from.

    Returns:
        For each tensor of ``to``, of shape ``P``, its cotangents ``[T, *P]``.

    Raises:
        NoGradientError: an operator on the path has no rule, or ``of`` does not depend on one
            of ``to`` in a differentiable way.
    """
    nodes = path_nodes(builder.graph, of, to)
    for node in nodes:  # before any rule stumbles over what such a node leaves unknown
        if find_rule(node) is None:
            raise _no_rule(builder, node)
    carrying = _carrying(nodes, to)
    cotangents: dict[ir.Value, list[ir.Value]] = {of: [seed]}
    for node in reversed(nodes):
        gs = [_total(builder, cotangents, o) for o in node.outputs]
        if all(g is None for g in gs):
            continue
        _backward(builder, node, gs, carrying, cotangents)
    found = [_total(builder, cotangents, value) for value in to]
    for value, g in zip(to, found, strict=True):
        if g is None:
            raise NoGradientError(
                f"'{of.name}' does not depend on '{value.name}' in a differentiable way, so "
                "there is no gradient between them."
            )
    return [g for g in found if g is not None]


def _no_rule(builder: Builder, node: ir.Node) -> NoGradientError:
    return NoGradientError(
        f"no gradient rule for {describe(node, builder.opset)}, which lies between the layer and "
        "the score. Choose a layer after it (--layer), or ask for the rule."
    )


def path_nodes(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> list[ir.Node]:
    """Return the nodes between ``to`` and ``of`` that may carry a gradient, in graph order."""
    upstream = leads_to(of)
    carrying = set(to)
    nodes = []
    for node in graph:
        outputs = [o for o in node.outputs if o in upstream and _may_carry(o)]
        if outputs and any(v in carrying for v in reads(node)) and not set(outputs) <= set(to):
            nodes.append(node)
            carrying.update(outputs)
    back = {of}
    kept = []
    for node in reversed(nodes):
        if any(o in back for o in node.outputs):
            kept.append(node)
            back.update(v for v in reads(node) if v in carrying)
    return kept[::-1]


def missing_rules(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> list[ir.Node]:
    """Return the nodes between ``to`` and ``of`` whose operator has no rule."""
    return [n for n in path_nodes(graph, of, to) if find_rule(n) is None]


def needed_opset(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> int:
    """Return the opset that the rules on the path need."""
    pairs = ((find_rule(n), n) for n in path_nodes(graph, of, to))
    return max((r.needed(n) for r, n in pairs if r is not None), default=13)


def _may_carry(value: ir.Value) -> bool:
    """Integers and booleans carry no gradient, except the codes of quantized tensors."""
    if value.dtype is None or is_float(value):
        return True
    quantized = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
    return value.dtype in quantized


def _carrying(nodes: Sequence[ir.Node], to: Sequence[ir.Value]) -> set[ir.Value]:
    return set(to) | {o for n in nodes for o in n.outputs}


def _total(
    builder: Builder, cotangents: dict[ir.Value, list[ir.Value]], value: ir.Value
) -> ir.Value | None:
    parts = cotangents.get(value)
    if not parts:
        return None
    if len(parts) > 1:
        parts[:] = [builder.op("Sum", *parts)]
    return parts[0]


def _backward(
    builder: Builder,
    node: ir.Node,
    gs: list[ir.Value | None],
    carrying: set[ir.Value],
    cotangents: dict[ir.Value, list[ir.Value]],
) -> None:
    """Hand the outputs' cotangents on to the operands of one node."""
    found = find_rule(node)
    assert found is not None
    call = Call(node, builder)
    if not found.all_outputs and any(g is not None for g in gs[1:]):
        raise call.refuse("the gradient comes through its second output")
    captured = set(reads(node)) - set(node.inputs)
    if captured & carrying:
        raise call.refuse("the gradient would enter an inner graph")
    for index, operand in enumerate(node.inputs):
        if operand is None or operand not in carrying:
            continue
        g = _operand_gradient(call, found, index, operand, gs)
        if g is not None:
            cotangents.setdefault(operand, []).append(g)


def _operand_gradient(
    call: Call, found: Rule, index: int, operand: ir.Value, gs: list[ir.Value | None]
) -> ir.Value | None:
    maker = found.maker(index)
    if maker is None:
        return None
    if found.all_outputs:
        g = maker(call, gs)  # type: ignore[arg-type]
    else:
        assert gs[0] is not None
        g = maker(call, gs[0])
    return unbroadcast(call, g, operand) if found.broadcasts else g


def unbroadcast(call: Call, g: ir.Value, operand: ir.Value) -> ir.Value:
    """Sum ``g``, ``[T, *shape of the output]``, over the axes that broadcasting added or grew."""
    sizes, full = call.dims(operand), call.dims(call.y)
    added = len(full) - len(sizes)
    g = call.builder.sum(g, [axis + 1 for axis in range(added)])
    grown = []
    unsure = False
    for axis, (size, out) in enumerate(zip(sizes, full[added:], strict=True)):
        if size == 1 and out != 1:
            grown.append(axis + 1)
        elif not isinstance(size, int) and (size is None or size != out):
            unsure = True
    if not unsure:
        return call.builder.sum(g, grown, keepdims=True)
    return _unbroadcast_at_run_time(call, g, operand)


def _unbroadcast_at_run_time(call: Call, g: ir.Value, operand: ir.Value) -> ir.Value:
    """Find the grown axes from the shapes that the run brings."""
    shape = call.op("Shape", operand)
    grown = call.op("Equal", shape, call.builder.ints(1))
    places = call.op("Squeeze", call.op("NonZero", grown), call.builder.ints(0))
    axes = call.op("Add", places, call.builder.ints(1))
    return call.op("ReduceSum", g, axes, keepdims=1, noop_with_empty_axes=1)
