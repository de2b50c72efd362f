"""Shapes and types of appended nodes.

Rules ask for shapes and ranks. So nodes that are appended to be differentiated first go through
onnx's shape inference, as a small model of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.helper
import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims, reads, subgraphs
from onnxcam.model.inference import infer
from onnxcam.model.shapes import INFERENCE_OPSET
from onnxcam.model.types import set_types

_SMALL = 1024  # elements; shapes do not depend on larger constants


def appended(graph: ir.Graph, last: ir.Node | None) -> list[ir.Node]:
    """Return the nodes after ``last``; all nodes if it is ``None``."""
    found = []
    for node in reversed(graph):
        if node is last:
            break
        found.append(node)
    return found[::-1]


def last_node(graph: ir.Graph) -> ir.Node | None:
    """Return the last node, if there is one."""
    return graph[-1] if len(graph) else None


def infer_appended(builder: Builder, nodes: Sequence[ir.Node]) -> None:
    """Set the shapes and types of the outputs of ``nodes``, as far as they can be inferred."""
    made = {o for n in nodes for o in n.outputs}
    outside = dict.fromkeys(v for n in nodes for v in reads(n) if v not in made)
    inputs, stored = [], []
    inner = {v for n in nodes for v in _inner_values(n)}
    for value in outside:
        if value in inner:
            continue
        tensor = value.const_value
        if tensor is not None and tensor.size <= _SMALL and not value.is_graph_input():
            stored.append(ir.serde.serialize_tensor(tensor))
            stored[-1].name = value.name or ""
        elif value.type is not None:
            inputs.append(ir.serde.serialize_value(value))
    outputs = [_info(o) for n in nodes for o in n.outputs]
    protos = [ir.serde.serialize_node(n) for n in nodes]
    graph = onnx.helper.make_graph(protos, "appended", inputs, outputs, stored)
    opsets = {**builder.root.opset_imports, "": max(builder.opset, INFERENCE_OPSET)}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    # Each inference numbers its symbols from 0, but to the runtime equal symbols are equal lengths.
    known = {d for v in outside for d in dims(v) or [] if isinstance(d, str)}
    fresh: dict[str, str] = {}

    def symbol(name: str) -> str:
        if name not in known and name not in fresh:
            fresh[name] = builder.name("length")
        return fresh.get(name, name)

    set_types(nodes, infer(model).graph, symbol)


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    """Return what is known of a value, which inference then starts from."""
    if value.type is None or value.shape is None:
        return onnx.helper.make_empty_tensor_value_info(value.name)
    return ir.serde.serialize_value(value)


def _inner_values(node: ir.Node) -> list[ir.Value]:
    """Return the inputs, weights and computed values of a node's subgraphs."""
    found: list[ir.Value] = []
    for graph in subgraphs(node):
        found += [*graph.inputs, *graph.initializers.values()]
        for inner in graph:
            found += [*inner.outputs, *_inner_values(inner)]
    return found
