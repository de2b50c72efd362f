"""Take over inferred types and shapes of values, also in subgraphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx
import onnx_ir as ir

from onnxcam.graph.values import subgraphs


def set_types(
    nodes: Iterable[ir.Node],
    inferred: onnx.GraphProto,
    symbol: Callable[[str], str] = str,
) -> None:
    """Give the values that ``nodes`` compute the types of ``inferred``, found by name.

    ``symbol`` renames symbolic lengths.
    """
    infos = {v.name: v for v in [*inferred.value_info, *inferred.output]}
    protos = {name: node for node in inferred.node for name in node.output if name}
    for node in nodes:
        for value in node.outputs:
            if value.name in infos:
                _set_type(value, infos[value.name], symbol)
        proto = next((protos[v.name] for v in node.outputs if v.name in protos), None)
        for graph, inner in () if proto is None else _subgraph_pairs(node, proto):
            for value, info in zip(graph.inputs, inner.input, strict=True):
                _set_type(value, info, symbol)
            set_types(graph, inner, symbol)


def _subgraph_pairs(
    node: ir.Node, proto: onnx.NodeProto
) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    """Yield each subgraph of a node with its inferred counterpart."""
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield node.attributes[attribute.name].as_graph(), attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            graphs = node.attributes[attribute.name].as_graphs()
            yield from zip(graphs, attribute.graphs, strict=True)


def _set_type(value: ir.Value, info: onnx.ValueInfoProto, symbol: Callable[[str], str]) -> None:
    """Set the element type and, where it is known, the shape."""
    if not info.type.HasField("tensor_type"):
        return
    tensor = info.type.tensor_type
    if tensor.elem_type:
        value.type = ir.TensorType(ir.DataType(tensor.elem_type))
    if tensor.HasField("shape"):
        value.shape = ir.Shape([_dim(d, symbol) for d in tensor.shape.dim])


def _dim(dim: onnx.TensorShapeProto.Dimension, symbol: Callable[[str], str]) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return symbol(dim.dim_param) if dim.dim_param else None


def take_types(graph: ir.Graph, source: ir.Graph) -> bool:
    """Give the values of ``graph`` the types of the values of the same names in ``source``.

    Returns:
        Whether every value was found there.
    """
    known = {v.name: v for n in source.all_nodes() for v in n.outputs}
    known |= {v.name: v for n in source.all_nodes() for g in subgraphs(n) for v in g.inputs}
    complete = True
    for node in graph.all_nodes():
        for value in (*node.outputs, *(v for g in subgraphs(node) for v in g.inputs)):
            twin = known.get(value.name)
            if twin is not None:
                value.shape, value.type = twin.shape, twin.type
            elif value.name:
                complete = False
    return complete
