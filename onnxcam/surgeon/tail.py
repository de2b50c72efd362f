"""Cut a graph at a tensor: what lies before it is fed, not computed."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import depends_on, leads_to, reads

FEED = f"{PREFIX}feed:"  # before the name of a tensor that is fed


def cut(builder: Builder, at: ir.Value) -> dict[str, str]:
    """Have everything that depends on a tensor read an input in its place.

    Whatever else crosses the cut (skip connections) and is computed from the inputs that the
    tensor is computed from becomes an input as well; lengths, which follow from how many images
    there are, are computed anew from the tensors whose lengths they are. Outputs that do not
    depend on the tensor are removed.

    Returns:
        The names of the tensors and of their inputs.
    """
    graph = builder.graph
    sources = set(graph.inputs) & leads_to(at)
    varying = depends_on(graph, sources)
    after = depends_on(graph, {at})
    nodes = [n for n in graph if not after.isdisjoint(n.outputs) and at not in n.outputs]
    read = dict.fromkeys(v for n in nodes for v in reads(n))
    crossing = [v for v in read if v is at or (v in varying and v not in after)]
    lengths = [n for v in crossing for n in _lengths(v, varying)]
    again = {v for n in lengths for v in n.outputs}
    measured = [v for n in lengths if n.op_type == "Shape" for v in n.inputs if v is not None]
    nodes += dict.fromkeys(lengths)
    crossing = [v for v in crossing if v is not at and v not in again and v not in sources]
    crossing = list(dict.fromkeys((at, *measured, *crossing)))
    fed = {}
    for value in crossing:
        feed = ir.Value(name=f"{FEED}{value.name}", shape=value.shape, type=value.type)
        graph.inputs.append(feed)
        fed[value.name or ""] = feed.name or ""
        for use in tuple(value.uses()):
            if use.node in set(nodes):
                use.node.replace_input_with(use.idx, feed)
    left = depends_on(graph, {v for v in graph.inputs if (v.name or "").startswith(FEED)})
    graph.outputs[:] = [v for v in graph.outputs if v in left]
    for value in sources & set(graph.inputs):
        if not any(value in set(reads(n)) for n in nodes):
            graph.inputs.remove(value)
    return fed


def _lengths(value: ir.Value, varying: set[ir.Value]) -> list[ir.Node]:
    """Return the nodes that make whole numbers of lengths alone, ``[]`` where something else is."""
    found: list[ir.Node] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        node = one.producer()
        if one not in varying or node in found:
            continue
        if node is None or one.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return []
        found.append(node)
        if node.op_type != "Shape":
            waiting += reads(node)
    return found
