"""Pass over what onnxcam wrote into a model before: a portable model is explained as its original.

Inputs and outputs that :func:`onnxcam.export` added are dropped, and what computes nothing else;
other names that onnxcam writes are freed.
"""

from __future__ import annotations

import json

import onnx

from onnxcam.graph.protos import all_nodes, subgraphs
from onnxcam.model.map_outputs import drop_unread

OWN = "onnxcam:"  # before the name of every value that is written into a graph


def pass_over_earlier(model: onnx.ModelProto) -> None:
    """Drop and rename in place; a model that was not exported by onnxcam stays as it is."""
    said = {p.key: p.value for p in model.metadata_props if p.key.startswith("onnxcam.")}
    if "onnxcam.version" not in said:
        return
    added: set[str] = set()
    for key in ("heatmaps", "overlays", "names"):
        try:
            added |= {*json.loads(said.get(f"onnxcam.{key}", "{}")).values()}
        except (ValueError, AttributeError, TypeError):
            continue  # written by something else
    graph = model.graph
    kept = [o for o in graph.output if o.name not in added]
    if kept:
        del graph.output[:]
        graph.output.extend(kept)
        drop_unread(graph, set(added))
    read = {i for n in all_nodes(graph) for i in n.input}
    for part in (graph.input, graph.initializer):
        for value in [v for v in part if v.name in added - read]:
            part.remove(value)
    _free_names(graph)


def _free_names(graph: onnx.GraphProto) -> None:
    """Rename inner values and nodes; the graph's inputs and outputs stay."""
    outer = {v.name for v in (*graph.input, *graph.output)}
    taken = outer | {n for node in all_nodes(graph) for n in (*node.input, *node.output)}
    renamed: dict[str, str] = {}

    def free(name: str) -> str:
        if not name.startswith(OWN) or name in outer:
            return name
        if name not in renamed:
            fresh = f"earlier {name}"
            while fresh in taken:
                fresh = f"earlier {fresh}"
            taken.add(fresh)
            renamed[name] = fresh
        return renamed[name]

    graphs = [graph]
    for node in all_nodes(graph):
        node.name = free(node.name)
        node.input[:] = [free(n) for n in node.input]
        node.output[:] = [free(n) for n in node.output]
        graphs += subgraphs(node)
    for one in graphs:
        inner = () if one is graph else (*one.input, *one.output)
        for value in (*one.initializer, *one.value_info, *inner):
            value.name = free(value.name)
        for sparse in one.sparse_initializer:
            sparse.values.name = free(sparse.values.name)
