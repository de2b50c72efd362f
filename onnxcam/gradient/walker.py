"""The backward walk: from a seeded tensor to the tensors whose gradient is wanted.

Only nodes on a path between the two are visited. Contributions of several readers are added,
and broadcasting is undone, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.helpers.quantization import holds_codes
from onnxcam.gradient.helpers.subgraphs import add_seeds
from onnxcam.gradient.infinite_slopes import is_steep
from onnxcam.gradient.policy import rectified
from onnxcam.gradient.registry import Call, Rule, find_rule, unfold
from onnxcam.gradient.widen import widen
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import LAYOUT, NCHWC, describe, dims, is_float, leads_to, reads

_BFLOAT16 = 22  # the opset from which on all operators that rules use take it


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
    nodes = list(builder.graph)
    last = last_node(builder.graph)
    builder.rows = builder.leading(seed)
    counting = appended(builder.graph, last)
    found = pull_back(builder, nodes, {of: seed}, to)
    for value, g in zip(to, found, strict=True):
        if g is None:
            raise NoGradientError(
                f"'{of.name}' does not depend on '{value.name}' in a differentiable way, so "
                f"there is no gradient between them.{_why(builder.graph, of, value)}"
            )
    made = [g for g in found if g is not None]
    for index, value in enumerate(to):
        if 0 in (dims(value) or ()):
            made[index] = _empty(builder, value)
    if not builder.rows.uses():
        builder.graph.remove(counting, safe=True)
        builder.rows = None
    return widen(builder, appended(builder.graph, last), made, to)


def _empty(builder: Builder, value: ir.Value) -> ir.Value:
    """Return the gradient of what has no elements.

    Where operators give it, ONNX Runtime 1.31 may take an axis of length 0 for one of length 1.
    """
    assert builder.rows is not None
    shape = builder.op("Concat", builder.rows, builder.op("Shape", value), axis=0)
    return builder.op("Expand", builder.constant(0.0, value.dtype), shape)


def pull_back(
    builder: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[ir.Value, ir.Value],
    to: Sequence[ir.Value],
) -> list[ir.Value | None]:
    """Append the vector-Jacobian product of several tensors at once.

    Args:
        builder: where operators are appended.
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
        if find_rule(node) is None:
            raise _no_rule(builder, node, list(seeds), to)
    carrying = set(to) | {o for n in on_path for o in n.outputs if _may_carry(o)}
    builder.ends = builder.ends | set(to) | set(seeds)
    cotangents: dict[ir.Value, list[ir.Value]] = {of: [seed] for of, seed in seeds.items()}
    for node in reversed(on_path):
        gs = [_total(builder, cotangents, o) for o in node.outputs]
        if any(g is not None for g in gs):
            _backward(builder, node, gs, carrying, cotangents)
            builder.bounded = builder.bounded and not is_steep(node)
    return [_total(builder, cotangents, value) for value in to]


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


def _why(graph: ir.Graph, of: ir.Value, to: ir.Value) -> str:
    """Name the operators at which the gradient stopped."""
    on_path = path_nodes(list(graph), [of], [to])
    carrying = {to} | {o for n in on_path for o in n.outputs}
    stopped: dict[str, str] = {}
    for node in on_path:
        found = find_rule(node)
        if found is not None and found.stops is not None:
            stopped[node.op_type] = found.stops
        elif found is not None and (found.makers or found.variadic):
            read = [i for i, v in enumerate(node.inputs) if v in carrying]
            if not any(found.maker(i) for i in read):
                places = " and ".join(map(str, read))
                stopped[node.op_type] = f"it takes operand {places} as a setting, not as data"
    if stopped:
        return "".join(f" {op_type} passes none: {why}." for op_type, why in stopped.items())
    if to in leads_to(of):
        return " One reaches the other through integers and comparisons only, which are flat."
    return f" '{of.name}' is computed without it."


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


def missing_rules(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> list[ir.Node]:
    """Return the nodes between ``to`` and ``of`` whose operator has no rule."""
    return [n for n in path_nodes(list(graph), [of], to) if find_rule(n) is None]


def needed_opset(graph: ir.Graph, of: ir.Value, to: Sequence[ir.Value]) -> int:
    """Return the opset that the rules on the path need."""
    nodes = path_nodes(list(graph), [of], to)
    pairs = ((find_rule(n), n) for n in nodes)
    needed = max((r.needed(n) for r, n in pairs if r is not None), default=13)
    halves = any(v.dtype == ir.DataType.BFLOAT16 for n in nodes for v in n.outputs)
    return max(needed, _BFLOAT16) if halves else needed


def _may_carry(value: ir.Value) -> bool:
    """Integers and booleans carry no gradient, except the codes of quantized tensors."""
    return value.dtype is None or is_float(value) or holds_codes(value)


def _total(
    builder: Builder, cotangents: dict[ir.Value, list[ir.Value]], value: ir.Value
) -> ir.Value | None:
    parts = cotangents.get(value)
    if not parts:
        return None
    if len(parts) > 1:
        add = "Add" if len(parts) == 2 else "Sum"  # of two, Add is much the faster
        if all(part in builder.folded for part in parts):
            total = builder.op(add, *(builder.folded[part] for part in parts))
            parts[:] = [unfold(builder, total, value, folded=True)]
        else:
            parts[:] = [builder.op(add, *parts)]
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
    if found.stops is not None:
        return
    if found.expand is not None:
        _through_expansion(call, found, gs, carrying, cotangents)
        return
    if found.whole is not None:
        wanted = [v for v in dict.fromkeys(reads(node)) if v in carrying]
        for value, g in zip(wanted, found.whole(call, gs, wanted), strict=True):
            if g is not None:
                cotangents.setdefault(value, []).append(g)
        return
    if not found.all_outputs and any(g is not None for g in gs[1:]):
        raise call.refuse("the gradient comes through its second output")
    for index, operand in enumerate(node.inputs):
        if operand is None or operand not in carrying:
            continue
        g = _operand_gradient(call, found, index, operand, gs)
        if g is not None:
            cotangents.setdefault(operand, []).append(g)


def _through_expansion(
    call: Call,
    found: Rule,
    gs: list[ir.Value | None],
    carrying: set[ir.Value],
    cotangents: dict[ir.Value, list[ir.Value]],
) -> None:
    """Append what the node stands for, and go back through that."""
    assert found.expand is not None
    graph = call.builder.graph
    last = last_node(graph)
    outputs = found.expand(call)
    nodes = appended(graph, last)
    infer_appended(call.builder, nodes)
    pairs = []
    for index, g in enumerate(gs):
        value = outputs[index] if index < len(outputs) else None
        if value is not None:
            pairs.append((value, g))
        elif g is not None:
            raise call.refuse(f"the gradient comes through its output {index}")
    seeds = add_seeds(call.builder, pairs)
    wanted = [v for v in dict.fromkeys(reads(call.node)) if v in carrying]
    changed = len(call.builder.rectifiers)
    try:
        pulled = pull_back(call.builder, nodes, seeds, wanted)
    except NoGradientError as error:
        where = describe(call.node, call.builder.opset)
        raise NoGradientError(
            f"{where} is computed by other operators, of which {error}"
        ) from error
    for operand, g in zip(wanted, pulled, strict=True):
        if g is not None:
            cotangents.setdefault(operand, []).append(g)
    _read_the_node(call.node, outputs, nodes)
    inside = call.builder.rectifiers[changed:]
    call.builder.rectifiers[changed:] = [call.node.name or call.y.name or ""] * len(inside)


def _read_the_node(
    node: ir.Node, outputs: Sequence[ir.Value | None], nodes: Sequence[ir.Node]
) -> None:
    """Have what reads an expansion's outputs read those of the node itself.

    They are the same. Where rules need nothing else, the expansion is then read by nobody, and
    nothing is computed twice.
    """
    made = {o for n in nodes for o in n.outputs}
    for value, own in zip(outputs, node.outputs, strict=False):
        if value in made and own.name and is_float(own) and value.dtype == own.dtype:
            for use in tuple(value.uses()):
                use.node.replace_input_with(use.idx, own)


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
        g = rectified(call, gs[0], maker)
    return unbroadcast(call, g, operand) if found.broadcasts and g is not None else g


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
    places = call.op("Squeeze", call.op("NonZero", grown), call.builder.ints(0))
    axes = call.op("Add", places, call.builder.ints(1))
    return call.op("ReduceSum", g, axes, keepdims=1, noop_with_empty_axes=1)
