"""Fold small constant expressions.

Exporters write shapes, pads and conditions as long chains of Constant, Shape, Gather, Concat,
Slice and Cast. Folded, they are known to shape inference and to the rules. An If on a constant
condition is replaced by the nodes of the branch that it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.protos import all_nodes, opset_of, subgraphs
from onnxcam.graph.values import free_name
from onnxcam.model.skeleton import SMALL_BYTES, nbytes

Arrays = dict[str, np.ndarray]
Lengths = Mapping[str, Sequence[int | None]]


def fold_constants(
    proto: onnx.ModelProto, lengths: Lengths | None = None, keep: frozenset[str] = frozenset()
) -> bool:
    """Replace small nodes with constant inputs by initializers, in place.

    Args:
        proto: the model.
        lengths: the shapes of values of the main graph, as far as they are known.
        keep: tensors that are not folded, since their gradient is wanted.

    Returns:
        Whether an If was replaced by one of its branches.
    """
    folder = _Folder(proto, lengths or {}, keep)
    folder.fold(proto.graph, {})
    return folder.replaced


class _Folder:
    def __init__(self, proto: onnx.ModelProto, lengths: Lengths, keep: frozenset[str]) -> None:
        self.keep = keep
        self.opset = opset_of(proto)
        self.lengths = lengths
        self.vectors: dict[str, list[int | None]] = {}  # vectors of lengths, partly known
        self.names = {v.name for v in (*proto.graph.input, *proto.graph.initializer)}
        self.names |= {name for node in all_nodes(proto.graph) for name in node.output}
        self.replaced = False

    def fold(self, graph: onnx.GraphProto, outer: Arrays) -> None:
        """Fold the nodes of one graph; ``outer`` are the constants of the graphs around it."""
        own = {v.name for v in (*graph.input, *graph.initializer)}
        known = {name: array for name, array in outer.items() if name not in own}
        known |= self.stored(graph)
        outputs = {o.name for o in graph.output} | self.keep
        folded: Arrays = {}
        kept = onnx.GraphProto()
        pending = deque(graph.node)
        opened: set[str] = set()
        while pending:
            node = pending.popleft()
            branch = _taken_branch(node, known)
            if branch is not None:
                pending.extendleft(reversed(self.opened(graph, node, branch)))
                known |= self.stored(graph)
                opened.update(node.output)
                self.replaced = True
                continue
            for inner in subgraphs(node):
                self.fold(inner, known)
            values = None if outputs.intersection(node.output) else self.values(node, known)
            if values is None:
                kept.node.append(node)
            else:
                known |= values
                folded |= values
        if not folded and not opened:
            return
        del graph.node[:]
        graph.node.extend(kept.node)
        # Stored descriptions may say less than is known now, and onnx would keep to them.
        stale = opened | folded.keys()
        kept.value_info.extend(v for v in graph.value_info if v.name not in stale)
        del graph.value_info[:]
        graph.value_info.extend(kept.value_info)
        used = {name for node in graph.node for name in _names_read(node)}
        graph.initializer.extend(
            onnx.numpy_helper.from_array(array, name)
            for name, array in folded.items()
            if name in used
        )

    def values(self, node: onnx.NodeProto, known: Arrays) -> Arrays | None:
        """Return the outputs of a node, ``None`` where they are not known."""
        if node.domain or has(node.op_type, Trait.RANDOM) or any(True for _ in subgraphs(node)):
            return None
        if node.op_type == "Constant":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if tensor is None:
                return _evaluate(node, known, self.opset)
            if tensor.data_location == onnx.TensorProto.EXTERNAL or nbytes(tensor) > SMALL_BYTES:
                return None
            if tensor.data_type == onnx.TensorProto.STRING:
                return None
            return {node.output[0]: onnx.numpy_helper.to_array(tensor)}
        if not node.input:
            return None
        if not all(name in known for name in node.input if name):
            return self.picked(node, known)
        if node.op_type == "ConstantOfShape" and np.prod(known[node.input[0]]) * 8 > SMALL_BYTES:
            return None
        return _evaluate(node, known, self.opset)

    def picked(self, node: onnx.NodeProto, known: Arrays) -> Arrays | None:
        """Return what a node reads of a shape: all or some of its lengths, where they are known."""
        source, *others = node.input
        if node.op_type == "Size" and source in self.lengths:
            sizes = [n for n in self.lengths[source] if n is not None]
            whole = len(sizes) == len(self.lengths[source])
            return {node.output[0]: np.asarray(np.prod(sizes, dtype=np.int64))} if whole else None
        if node.op_type == "Shape" and source in self.lengths:
            ends = {a.name: a.i for a in node.attribute}
            vector = list(self.lengths[source])
            indices = np.arange(len(vector))[ends.get("start") : ends.get("end")]
        elif node.op_type in ("Gather", "Slice") and source in self.vectors:
            vector = self.vectors[source]
            found = None
            if all(name in known for name in others if name):
                found = _evaluate(node, {**known, source: np.arange(len(vector))}, self.opset)
            if found is None:
                return None
            indices = found[node.output[0]]
        else:
            return None
        values = [vector[i] for i in indices.ravel()]
        if any(v is None for v in values):
            if indices.ndim == 1:
                self.vectors[node.output[0]] = values
            return None
        return {node.output[0]: np.array(values, np.int64).reshape(indices.shape)}

    def opened(
        self, graph: onnx.GraphProto, node: onnx.NodeProto, branch: onnx.GraphProto
    ) -> list[onnx.NodeProto]:
        """Return a branch's nodes, renamed for ``graph``, which gets the branch's weights."""
        produced = {name for child in branch.node for name in child.output}
        new: dict[str, str] = {}
        passed = []
        for value, name in zip(branch.output, node.output, strict=True):
            if value.name in produced and value.name not in new and name:
                new[value.name] = name
            elif name:
                passed.append((value.name, name))
        base = node.name or next(name for name in node.output if name)
        for name in (*produced, *(t.name for t in branch.initializer)):
            if name and name not in new:
                new[name] = free_name(f"{base}/{name}", self.names)
        for tensor in branch.initializer:
            graph.initializer.append(tensor)
            graph.initializer[-1].name = new[tensor.name]
        described = {v.name for v in (*graph.output, *graph.value_info)}
        for info in branch.value_info:
            if new.get(info.name, info.name) not in described:
                graph.value_info.append(info)
                graph.value_info[-1].name = new.get(info.name, info.name)
        nodes = []
        for child in branch.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(child)
            _rename(copy, new)
            nodes.append(copy)
        for source, name in passed:
            nodes.append(onnx.helper.make_node("Identity", [new.get(source, source)], [name]))
        return nodes

    def stored(self, graph: onnx.GraphProto) -> Arrays:
        """Return the small stored weights of a graph."""
        inside = (t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL)
        small = (t for t in inside if nbytes(t) <= SMALL_BYTES and t.name not in self.keep)
        return {t.name: onnx.numpy_helper.to_array(t) for t in small}


def _taken_branch(node: onnx.NodeProto, known: Arrays) -> onnx.GraphProto | None:
    """Return the branch that an If on a constant takes."""
    if node.op_type != "If" or node.domain or node.input[0] not in known:
        return None
    name = "then_branch" if known[node.input[0]].all() else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == name)
    return None if branch.sparse_initializer else branch


def _rename(node: onnx.NodeProto, new: Mapping[str, str]) -> None:
    """Rename what a node reads and computes, subgraphs included."""
    for names in (node.input, node.output):
        names[:] = [new.get(name, name) for name in names]
    for inner in subgraphs(node):
        for output in inner.output:
            output.name = new.get(output.name, output.name)
        for child in inner.node:
            _rename(child, new)


def _names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those captured by its subgraphs included."""
    names = set(node.input)
    for graph in subgraphs(node):
        names |= {o.name for o in graph.output}
        for child in graph.node:
            names |= _names_read(child)
    return names


def _evaluate(node: onnx.NodeProto, known: Arrays, opset: int) -> Arrays | None:
    """Run one node on constants; ``None`` if it fails or a result is large."""
    try:
        arrays = run_node(node, {name: known[name] for name in node.input if name}, opset)
    except Exception:  # what the evaluator cannot run stays a node
        return None
    if any(a.nbytes > SMALL_BYTES or a.dtype.kind not in "iufb" for a in arrays):
        return None
    return dict(zip(filter(None, node.output), arrays, strict=True))


def run_node(node: onnx.NodeProto, feeds: Arrays, opset: int) -> list[np.ndarray]:
    """Run one node in onnx's evaluator, which may raise anything."""
    from onnx.reference import ReferenceEvaluator

    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
