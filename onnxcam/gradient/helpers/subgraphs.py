"""Copy and build subgraphs: the bodies of If, Loop and Scan.

The gradient of such an operator is another such operator, whose body recomputes the original
body's values and goes back through them. The copy captures what the original captures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxcam.gradient.backward import Cotangents, length_of_t
from onnxcam.gradient.registry import find_rule
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import drop_unneeded, original_name, subgraphs
from onnxcam.model.opset import BASE_OPSET


def copy_body(
    builder: Builder, body: ir.Graph, inputs: Mapping[ir.Value, ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Append copies of the nodes of ``body``, which read ``inputs`` in place of its own inputs.

    Returns:
        The copy of each value of the body. Captured values have none.
    """
    _move_initializers(builder, body)
    known = dict(inputs)
    for node in body:
        _copy_node(builder, node, known)
    return known


def _copy_node(builder: Builder, node: ir.Node, known: dict[ir.Value, ir.Value]) -> None:
    attributes = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = _copy_graph(builder, attribute.as_graph(), known)
            attribute = ir.Attr(attribute.name, attribute.type, graph)
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = [_copy_graph(builder, g, known) for g in attribute.as_graphs()]
            attribute = ir.Attr(attribute.name, attribute.type, graphs)
        attributes.append(attribute)
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if v is None else known.get(v, v) for v in node.inputs],
        attributes,
        num_outputs=len(node.outputs),
        name=builder.name(_hint(node.name or node.op_type)),
    )
    copy.meta["original"] = original_name(node) or node.outputs[0].name
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.name = builder.name(_hint(old.name)) if old.name else ""
        new.shape, new.type = old.shape, old.type
        known[old] = new
    builder.graph.append(copy)


def copy_inputs(builder: Builder, body: ir.Graph) -> list[ir.Value]:
    """Return new values, typed as the inputs of ``body`` and named after them."""
    return [builder.value(_hint(v.name or "input"), v) for v in body.inputs]


def _hint(original: str) -> str:
    """Return the hint that a builder made a name from; other names as they are."""
    hint = original.removeprefix(PREFIX)
    return hint if hint == original else hint.rpartition(".")[0]


def _copy_graph(builder: Builder, graph: ir.Graph, known: dict[ir.Value, ir.Value]) -> ir.Graph:
    inputs = copy_inputs(builder, graph)
    copy = builder.subgraph(_hint(graph.name or "graph"), inputs)
    copies = copy_body(copy, graph, {**known, **dict(zip(graph.inputs, inputs, strict=True))})
    copy.graph.outputs.extend(copies.get(v, v) for v in graph.outputs)
    return copy.graph


def _move_initializers(builder: Builder, body: ir.Graph) -> None:
    """Store a body's weights in the outermost graph, where its copies share them."""
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        value.name = builder.name(name)
        if value.const_value is not None:
            value.const_value.name = value.name
        builder.root.register_initializer(value)


def close(builder: Builder, outputs: Sequence[ir.Value]) -> ir.Graph:
    """Return the builder's subgraph with these outputs and only the nodes that they need.

    Runtimes want every output computed inside the subgraph, and none twice: Identity sees to both.
    """
    own = {o for node in builder.graph for o in node.outputs}
    for value in outputs:
        source = value
        if source not in own:
            value = builder.op("Identity", source)
            value.type, value.shape = source.type, source.shape
        own.discard(value)
        builder.graph.outputs.append(value)
    drop_unneeded(builder.graph)
    return builder.graph


def some_length_of_t(builder: Builder, gs: Cotangents) -> ir.Value:
    """Return ``T``, an int64 vector of one element, from the first cotangent there is."""
    return length_of_t(builder, next(g for g in gs if g is not None))


def zeros(builder: Builder, T: ir.Value, like: ir.Value) -> ir.Value:
    """Return zero cotangents ``[T, *shape of like]``."""
    zero = builder.constant(0.0, like.dtype or ir.DataType.FLOAT)
    shape = builder.op("Concat", T, builder.shape(like), axis=0)
    return builder.op("Expand", zero, shape)


def opset_inside(node: ir.Node) -> int:
    """Return the opset that the rules of the operators in a node's subgraphs need."""
    inside = (n for graph in subgraphs(node) for n in graph)
    found = ((find_rule(n), n) for n in inside)
    return max((rule.needed(n) for rule, n in found if rule is not None), default=BASE_OPSET)
