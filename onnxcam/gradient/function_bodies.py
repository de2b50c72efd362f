"""Function bodies: the standard's definitions of operators by other operators.

Many operators have one (``onnx.defs``: ``has_function``). An operator without a rule of its own is
differentiated through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx_ir as ir

from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.call import Call
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import constant, dims
from onnxcam.model.fold import run_node

Values = dict[ir.Value, ir.Value | None]
Attributes = Mapping[str, ir.Attr]
REFUSES = (
    "the installed onnx does not know it",
    "its function body takes fewer operands",
    "the standard does not define it by other operators at this opset",
    "the standard defines it by other operators for known lengths only",
    "the type of '{}' is unknown",
)

_FOLDED = 4096  # elements; larger constants are left to the runtime


@cache
def body_opset(op_type: str) -> int | None:
    """Return the opset from which on an operator has a body; ``None`` where it never has one."""
    found = []
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.name == op_type and schema.domain == "" and not schema.deprecated:
            found += [max(version, schema.since_version) for version in _versions(schema)]
    return min(found, default=None)


def from_schema(call: Call) -> Sequence[ir.Value | None]:
    """Append the standard's definition of a node; return the values of its outputs."""
    node = call.node
    try:
        schema = onnx.defs.get_schema(node.op_type, call.builder.opset)
    except onnx.defs.SchemaError as error:
        raise call.refuse(REFUSES[0]) from error
    proto = _body(call, schema)
    given = [*proto.output]
    made = {*proto.input, *(o for n in proto.node for o in n.output)}
    del proto.output[:]
    proto.output.extend(o for o in given if o in made)  # a body may leave out unused outputs
    attributes = {**_defaults(schema), **node.attributes}
    outputs = call_function(call, ir.serde.deserialize_function(proto), attributes)
    found = dict(zip(proto.output, outputs, strict=True))
    return [found.get(name) for name in given]


def call_function(
    call: Call, function: ir.Function, attributes: Attributes
) -> list[ir.Value | None]:
    """Append a function's nodes with the call's operands; return the values of its outputs."""
    if len(call.node.inputs) > len(function.inputs):
        raise call.refuse(REFUSES[1])
    operands = [call.operand(index) for index in range(len(function.inputs))]
    values: Values = dict(zip(function.inputs, operands, strict=True))
    _Copy(call.builder, attributes).append(list(function), values)
    return [values.get(output) for output in function.outputs]


def _versions(schema: onnx.defs.OpSchema) -> list[int]:
    """Return the opsets for which a schema has bodies."""
    plain, dependent = (
        schema.function_opset_versions,
        schema.context_dependent_function_opset_versions,
    )
    return sorted({*plain, *dependent})


def _body(call: Call, schema: onnx.defs.OpSchema) -> onnx.FunctionProto:
    """Return the newest body that the model's opset allows."""
    version = max((v for v in _versions(schema) if v <= call.builder.opset), default=None)
    if version is None:
        raise call.refuse(REFUSES[2])
    if version in schema.function_opset_versions:
        stored = schema.get_function_with_opset_version(version)
    else:
        types = [_type(call, value) for value in call.node.inputs]
        proto = ir.serde.serialize_node(call.node).SerializeToString()
        stored = schema.get_context_dependent_function_with_opset_version(version, proto, types)
    found = onnx.FunctionProto.FromString(stored)
    if not found.node:
        raise call.refuse(REFUSES[3])
    return found


def _type(call: Call, value: ir.Value | None) -> bytes:
    """Return the serialized type of an operand, which some bodies depend on."""
    if value is None:
        return b""
    if value.type is None:
        raise call.refuse(REFUSES[4], value.name)
    return bytes(ir.serde.serialize_value(value).type.SerializeToString())


def _defaults(schema: onnx.defs.OpSchema) -> dict[str, ir.Attr]:
    """Return the default values of a schema's attributes."""
    found = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            found[name] = ir.serde.deserialize_attribute(attribute.default_value)
    return found


class _Copy:
    """Copies the nodes of a function into a graph, with the function's attributes filled in.

    Nodes that depend on constants and known shapes alone are folded, and an ``If`` on a constant
    is replaced by one of its branches, so that rules see known axes, shapes and indices.
    """

    def __init__(self, builder: Builder, attributes: Attributes) -> None:
        self.builder = builder
        self.attributes = attributes
        self.last = last_node(builder.graph)

    def append(self, nodes: Sequence[ir.Node], values: Values) -> None:
        """Append copies of ``nodes``; ``values`` maps the function's values to the graph's."""
        for node in nodes:
            inputs = [None if v is None else values.get(v) for v in node.inputs]
            attributes = self._attributes(node)
            outputs: Sequence[ir.Value | None] | None
            outputs = self._folded(node, inputs, attributes)
            if outputs is None:
                outputs = self._taken_branch(node, inputs, values)
            if outputs is None:
                outputs = self._copied(node, inputs, attributes, values)
            values.update(zip(node.outputs, outputs, strict=True))

    def _attributes(self, node: ir.Node) -> dict[str, ir.Attr]:
        """Return a node's attributes, with references resolved."""
        found = {}
        for name, attribute in node.attributes.items():
            resolved: ir.Attr | None = attribute
            if attribute.is_ref():
                resolved = self.attributes.get(attribute.ref_attr_name or "")
            if resolved is not None:
                found[name] = ir.Attr(name, resolved.type, resolved.value)
        return found

    def _copied(
        self,
        node: ir.Node,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes,
        values: Values,
    ) -> Sequence[ir.Value]:
        settings: dict[str, Any] = {}
        for name, attribute in attributes.items():
            is_graph = attribute.type == ir.AttributeType.GRAPH
            settings[name] = (
                self._subgraph(attribute.as_graph(), values) if is_graph else attribute.value
            )
        count = len(node.outputs)
        return self.builder.op_many(node.op_type, inputs, count, node.domain, **settings)

    def _subgraph(self, graph: ir.Graph, values: Values) -> ir.Graph:
        """Copy a subgraph."""
        inputs = [self.builder.value(v.name or "input", v) for v in graph.inputs]
        copy = _Copy(self.builder.subgraph(graph.name or "body", inputs), self.attributes)
        inside = {**values, **dict(zip(graph.inputs, inputs, strict=True))}
        copy.append(list(graph), inside)
        for output in graph.outputs:
            value = inside[output]
            assert value is not None
            copy.builder.graph.outputs.append(copy.builder.op("Identity", value))
        return copy.builder.graph

    def _taken_branch(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], values: Values
    ) -> Sequence[ir.Value | None] | None:
        """Append the branch that an ``If`` on a constant takes; return its outputs."""
        condition = constant(inputs[0]) if node.op_type == "If" else None
        if condition is None:
            return None
        graph = node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()
        inside = dict(values)
        self.append(list(graph), inside)
        return [inside[output] for output in graph.outputs]

    def _folded(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: Attributes
    ) -> Sequence[ir.Value] | None:
        """Return a node's outputs as constants, where they follow from constants and shapes."""
        first = inputs[0] if inputs else None
        if node.op_type in ("Shape", "Size") and first is not None:
            lengths = self._lengths(first, attributes)
            if lengths is None:
                return None
            known = lengths if node.op_type == "Shape" else np.prod(lengths, dtype=np.int64)
            return [self.builder.constant(known)]
        arrays = [constant(v) for v in inputs]
        if node.op_type == "CastLike" and inputs[1] is not None and arrays[0] is not None:
            kind = self._known(inputs[1]).dtype
            return None if kind is None else [self.builder.constant(arrays[0], kind)]
        if any(a is None for a, v in zip(arrays, inputs, strict=True) if v is not None):
            return None
        if sum(a.size for a in arrays if a is not None) > _FOLDED:
            return None
        results = _evaluate(node, arrays, attributes, self.builder.opset)
        return None if results is None else [self.builder.constant(a) for a in results]

    def _known(self, value: ir.Value) -> ir.Value:
        """Infer the type and shape of a value that this copy computes."""
        if value.shape is None or value.dtype is None:
            infer_appended(self.builder, appended(self.builder.graph, self.last))
        return value

    def _lengths(self, value: ir.Value, attributes: Attributes) -> np.ndarray | None:
        """Return the lengths of the axes ``start`` to ``end``, where they are known."""
        found = dims(self._known(value))
        if found is None:
            return None
        start, end = (attributes[n].as_int() if n in attributes else None for n in ("start", "end"))
        chosen = [d for d in found[start:end] if isinstance(d, int)]
        return np.array(chosen, np.int64) if len(chosen) == len(found[start:end]) else None


def _evaluate(
    node: ir.Node, arrays: Sequence[np.ndarray | None], attributes: Attributes, opset: int
) -> list[np.ndarray] | None:
    """Run one node on constants; ``None`` where the results are not plain numbers."""
    if node.domain or node.op_type.startswith("Random"):
        return None
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in attributes.values()
    ):
        return None
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    outputs = [f"y{i}" for i in range(len(node.outputs))]
    proto = onnx.helper.make_node(node.op_type, names, outputs)
    proto.attribute.extend(ir.serde.serialize_attribute(a) for a in attributes.values())
    feeds = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    found = run_node(proto, feeds, opset)
    return found if all(a.dtype.kind in "biuf" for a in found) else None
