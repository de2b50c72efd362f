"""The backward walk: from seeded tensors to the tensors whose gradient is wanted.

Only nodes on a path between them are visited. Contributions of several readers are added, and
broadcasting is undone, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from onnxcam.errors import ContradictionError, NoGradientError, first_line
from onnxcam.gradient.backward import Backward, Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.infinite_slopes import has_infinite_slope
from onnxcam.graph.builder import Builder
from onnxcam.graph.quantized import holds_quantized
from onnxcam.graph.values import LAYOUT, NCHWC, describe, is_float, leads_to, reads


def pull_back(
    walk: Backward,
    nodes: Sequence[ir.Node],
    seeds: Mapping[ir.Value, ir.Value],
    to: Sequence[ir.Value],
) -> list[ir.Value | None]:
    """Append the vector-Jacobian product of several tensors at once.

    Args:
        walk: says how, and where operators are appended.
        nodes: the nodes to go back through, in their order.
        seeds: the cotangent ``[T, *S]`` of each differentiated tensor.
        to: tensors whose cotangents are wanted.

    Returns:
        For each tensor of ``to`` its cotangents, ``None`` where nothing depends on it.

    Raises:
        NoGradientError: an operator on the path has no rule.
    """
    on_path = path_nodes(nodes, list(seeds), to)
    for node in on_path:  # before any rule stumbles over what such a node leaves unknown
        if walk.rule_for(node) is None:
            raise _no_rule(walk.builder, node, list(seeds), to)
    carrying = set(to) | {o for n in on_path for o in n.outputs if _may_carry(o)}
    walk.ends = walk.ends | set(to) | set(seeds)
    cotangents: dict[ir.Value, list[ir.Value]] = {of: [seed] for of, seed in seeds.items()}
    for node in reversed(on_path):
        gs = [_total(walk, cotangents, o) for o in node.outputs]
        if any(g is not None for g in gs):
            _backward(walk, node, gs, carrying, cotangents)
            walk.finite = walk.finite and not has_infinite_slope(node)
    return [_total(walk, cotangents, value) for value in to]


def _backward(
    walk: Backward,
    node: ir.Node,
    gs: Cotangents,
    carrying: set[ir.Value],
    cotangents: dict[ir.Value, list[ir.Value]],
) -> None:
    """Hand the outputs' cotangents on to what one node reads."""
    rule = walk.rule_for(node)
    assert rule is not None
    try:
        for value, g in rule.back(walk, node, gs, carrying):
            _tell_rank(g, value)
            cotangents.setdefault(value, []).append(g)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ContradictionError(
            f"{describe(node, walk.builder.opset)} cannot be differentiated, since its graph "
            f"contradicts itself ({type(error).__name__}: {first_line(error)})."
        ) from error


def _tell_rank(g: ir.Value, value: ir.Value) -> None:
    """Say what shape inference may not find where only the run knows lengths: second derivatives.

    Rules ask for ranks, and a cotangent may be differentiated in its turn. What stands for a
    sequence is joined, and has another rank than its parts.
    """
    tensor = isinstance(value.type, ir.TensorType) and is_float(value)
    if tensor and g.shape is None and value.shape is not None:
        g.shape = ir.Shape([None] * (1 + len(value.shape)))
        g.type = g.type or value.type


def _total(
    walk: Backward, cotangents: dict[ir.Value, list[ir.Value]], value: ir.Value
) -> ir.Value | None:
    parts = cotangents.get(value)
    if not parts:
        return None
    if len(parts) > 1:
        add = "Add" if len(parts) == 2 else "Sum"  # of two, Add is much the faster
        if all(part in walk.merged for part in parts):
            total = walk.builder.op(add, *(walk.merged[part] for part in parts))
            parts[:] = [walk.split_t(total, value, merged=True)]
        else:
            parts[:] = [walk.builder.op(add, *parts)]
    return parts[0]


def add_cotangents(
    builder: Builder, pairs: Iterable[tuple[ir.Value, ir.Value | None]]
) -> dict[ir.Value, ir.Value]:
    """Return the cotangent of each value; those of a value that occurs twice are added."""
    total: dict[ir.Value, ir.Value] = {}
    for value, g in pairs:
        if g is not None:
            total[value] = builder.op("Add", total[value], g) if value in total else g
    return total


def _no_rule(
    builder: Builder, node: ir.Node, of: Sequence[ir.Value], to: Sequence[ir.Value]
) -> NoGradientError:
    before = leads_to(node.outputs[0])
    start = next(v for v in to if v in before)
    end = next(v for v in of if not leads_to(v).isdisjoint(node.outputs))
    way_out = "docs/operators.md says which operators have one and how to add a rule"
    if node.domain == NCHWC:
        way_out = f"It is in the memory layout of one processor. {LAYOUT}"
    return NoGradientError(
        f"no gradient rule for {describe(node, builder.opset)}, which lies between "
        f"'{start.name}' and '{end.name}'. {way_out}."
    )


def path_nodes(
    nodes: Sequence[ir.Node], of: Sequence[ir.Value], to: Sequence[ir.Value]
) -> list[ir.Node]:
    """Return the nodes between ``to`` and ``of`` that may carry a gradient, in order."""
    carrying = set(to)
    after = []
    for node in nodes:
        outputs = [o for o in node.outputs if _may_carry(o)]
        if outputs and any(v in carrying for v in reads(node)):
            after.append(node)
            carrying.update(outputs)
    back = set(of)
    kept = []
    for node in reversed(after):
        if any(o in back for o in node.outputs):
            kept.append(node)
            back.update(v for v in reads(node) if v in carrying)
    return kept[::-1]


def _may_carry(value: ir.Value) -> bool:
    """Integers and booleans carry no gradient, except what quantized tensors are stored as."""
    return value.dtype is None or is_float(value) or holds_quantized(value)


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
    return unbroadcast_at_run_time(call, g, operand)


def unbroadcast_at_run_time(call: Call, g: ir.Value, operand: ir.Value) -> ir.Value:
    """Sum ``g``, of the operand's rank under ``T``, over axes that the run finds of length 1."""
    shape = call.op("Shape", operand)
    grown = call.op("Equal", shape, call.builder.ints(1))
    found = call.op("Squeeze", call.op("NonZero", grown), call.builder.ints(0))
    axes = call.op("Add", found, call.builder.ints(1))
    return call.op("ReduceSum", g, axes, keepdims=1, noop_with_empty_axes=1)
