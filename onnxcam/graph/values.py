"""Questions about the values and nodes of a graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxcam.errors import TensorError, nearest

NCHWC = "com.microsoft.nchwc"  # ONNX Runtime's operators on blocks of channels
LAYOUT = "Save the optimized model at level 'extended' in place of 'all', or give the original file"
_LONG = 80  # longer names are shortened in messages

HALVES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, *HALVES}


def dims(value: ir.Value) -> list[int | str | None] | None:
    """Return the lengths of the axes: int, symbol's name or ``None``; ``None`` for unknown rank."""
    if value.shape is None:
        return None
    return [d if isinstance(d, int) else d.value for d in value.shape]


def is_float(value: ir.Value) -> bool:
    """Whether the value is known to be of a floating-point type."""
    return value.dtype in FLOATS


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the value as an array when it is a stored constant, perhaps by another name."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    if node is not None and node.op_type == "Identity":  # weights that layers share
        return constant(node.inputs[0])
    return None


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the subgraphs of a node: the branches of If, the body of Loop or Scan."""
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node reads, those captured by its subgraphs included."""
    yield from (v for v in node.inputs if v is not None)
    for graph in subgraphs(node):
        yield from graph.outputs
        for inner in graph:
            yield from reads(inner)


def drop_unneeded(graph: ir.Graph, prefix: str = "") -> None:
    """Remove nodes and stored constants named ``prefix...`` that no output needs.

    Runtimes compute even what nothing reads.
    """
    needed = {*graph.inputs, *graph.outputs}
    for node in reversed(graph):
        if (node.name or "").startswith(prefix) and needed.isdisjoint(node.outputs):
            graph.remove(node)
            _disconnect(node)
        else:
            needed.update(reads(node))
    for name, value in list(graph.initializers.items()):
        if name.startswith(prefix) and value not in needed:
            del graph.initializers[name]


def _disconnect(node: ir.Node) -> None:
    """Disconnect a removed node and its subgraphs from what they read."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for inner in subgraphs(node):
        inner.outputs.clear()
        for child in inner:
            _disconnect(child)


def operator(node: ir.Node) -> str:
    """Return the operator's name, with its domain when that is not the default one."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def original_name(node: ir.Node) -> str:
    """Return a node's name; for a copy, the name of its original."""
    return node.meta.get("original") or node.name or ""


def describe(node: ir.Node, opset: int | None = None) -> str:
    """Return ``Conv (node 'conv1', opset 13)``, the way messages name a node."""
    given = original_name(node)
    name = given or node.outputs[0].name or ""
    if len(name) > _LONG:
        name = f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"
    where = f"node '{name}'" if given else f"producing '{name}'"
    return f"{operator(node)} ({where}{f', opset {opset}' if opset else ''})"


def depends_on(graph: ir.Graph, sources: set[ir.Value]) -> set[ir.Value]:
    """Return the values computed from ``sources``, these included."""
    reached = set(sources)
    for node in graph:
        if any(v in reached for v in reads(node)):
            reached.update(node.outputs)
    return reached


def leads_to(value: ir.Value) -> set[ir.Value]:
    """Return the values that ``value`` is computed from, itself included."""
    reached = {value}
    stack = [value]
    while stack:
        node = stack.pop().producer()
        if node is None:
            continue
        for source in reads(node):
            if source not in reached:
                reached.add(source)
                stack.append(source)
    return reached


def tensors(graph: ir.Graph, *wanted: str) -> list[ir.Value]:
    """Return tensors of the main graph by their names, stored weights among them.

    Raises:
        TensorError: there is none of that name.
    """
    known = {**graph.initializers, **names(graph)}
    for name in wanted:
        if name not in known:
            raise TensorError(f"no tensor '{name}' in the main graph.{nearest(name, known)}")
    return [known[name] for name in wanted]


def free_name(name: str, taken: set[str]) -> str:
    """Return ``name``, numbered if it is taken, and add it to ``taken``."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}.{count}"
    taken.add(found)
    return found


def names(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return every named value that the graph computes or takes."""
    found = {v.name: v for v in graph.inputs if v.name}
    for node in graph:
        found |= {v.name: v for v in node.outputs if v.name}
    return found
