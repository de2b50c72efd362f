"""Store a model's weights in float16 and compute in it; inputs and outputs keep their types.

1. A node becomes half where its operator takes float16 in the model's opset, and it has no
   subgraphs; what it reads of others is cast, once a tensor.
2. Float32 weights that it reads are stored in float16, limited to the largest finite number.
3. What is named stays float32, as do operators that take no float16.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from onnxcam.errors import ModelError, first_line
from onnxcam.graph.protos import opset_of, subgraphs
from onnxcam.model.skeleton import skeleton

_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)


def in_half(model: onnx.ModelProto, keep: Collection[str], path: Path) -> None:
    """Turn a model into float16, in place.

    Args:
        model: its nodes are in order, and its weights in the file itself.
        keep: names of nodes that stay in float32.
        path: the file, for messages.

    Raises:
        ModelError: weights lie in other files, or types cannot be inferred.
    """
    if any(t.data_location == t.EXTERNAL for t in model.graph.initializer):
        raise ModelError(
            f"{path}: float16 rewrites the weights, and some are in files of their own. Put them "
            f"into one file first: python -c \"import onnx; onnx.save(onnx.load('{path}'), "
            "'one-file.onnx')\""
        )
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(model)[0], strict_mode=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be stored in float16: {first_line(error)}") from error
    graph = inferred.graph
    known = [*graph.input, *graph.output, *graph.value_info]
    floats = {v.name for v in known if v.type.tensor_type.elem_type == _FLOAT}
    floats |= {
        t.name for t in [*graph.initializer, *model.graph.initializer] if t.data_type == _FLOAT
    }
    _Halving(model, floats, keep).run()


class _Halving:
    def __init__(self, model: onnx.ModelProto, floats: set[str], keep: Collection[str]) -> None:
        self.graph, self.opset = model.graph, opset_of(model)
        self.floats, self.keep = floats, keep
        self.weights = {t.name: t for t in self.graph.initializer}
        self.inputs = {i.name for i in self.graph.input}
        self.halves: set[str] = set()  # tensors that are float16 now
        self.cast: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        outputs = {o.name for o in self.graph.output}
        for node in self.graph.node:
            taken = self._taken(node)
            for index, name in enumerate(node.input):
                if name in self.floats:
                    half = taken is not None and index in taken
                    node.input[index] = self._as(name, _HALF if half else _FLOAT)
            for inner in subgraphs(node):
                self._outer_as_float(inner)
            self.nodes.append(node)
            if taken is not None:
                self._halve_attributes(node)
                for index, name in enumerate(node.output):
                    if name in self.floats and name in outputs:
                        node.output[index] = f"{name}:half"
                        self.nodes.append(self._caster(node.output[index], name, _FLOAT))
                        self.cast[name, _HALF] = node.output[index]
                    elif name in self.floats:
                        self.halves.add(name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        read = {n for node in self.nodes for n in node.input}
        read |= {n for node in self.nodes for g in subgraphs(node) for m in g.node for n in m.input}
        kept = [t for t in self.graph.initializer if t.name in read or t.name in self.inputs]
        kept = [t for t in kept if t.name not in self.stored]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.stored.values()])
        del self.graph.value_info[:]

    def _taken(self, node: onnx.NodeProto) -> set[int] | None:
        """Return the inputs that a node takes in float16, ``None`` where it stays in float32."""
        if node.domain or node.name in self.keep or any(True for _ in subgraphs(node)):
            return None
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset)
        except onnx.defs.SchemaError:
            return None
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        taken, bound = set(), False
        sides = ((True, schema.inputs, node.input), (False, schema.outputs, node.output))
        for reading, formals, names in sides:
            for index, name in enumerate(names):
                if name not in self.floats or not formals:
                    continue
                kind = formals[min(index, len(formals) - 1)].type_str
                if kind not in allowed:  # always float32, as the scales of Resize
                    if not reading:
                        return None
                    continue
                if "tensor(float16)" not in allowed[kind]:
                    return None
                bound = True
                if reading:
                    taken.add(index)
        return taken if bound else None

    def _as(self, name: str, kind: int) -> str:
        """Return the name of a float tensor in a type, cast once."""
        if (name in self.halves) == (kind == _HALF):
            return name
        if (name, kind) not in self.cast:
            made = f"{name}:{'half' if kind == _HALF else 'float'}"
            if name in self.weights and name not in self.inputs:
                self.stored[made] = _stored(self.weights[name], made)
            else:
                self.nodes.append(self._caster(name, made, kind))
            self.cast[name, kind] = made
        return self.cast[name, kind]

    def _outer_as_float(self, graph: onnx.GraphProto) -> None:
        """Let a subgraph, which stays in float32, read outer tensors so."""
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in self.halves:
                    node.input[index] = self._as(name, _FLOAT)
            for inner in subgraphs(node):
                self._outer_as_float(inner)
        for output in graph.output:
            if output.name in self.halves:
                output.name = self._as(output.name, _FLOAT)

    @staticmethod
    def _caster(source: str, target: str, kind: int) -> onnx.NodeProto:
        return onnx.helper.make_node("Cast", [source], [target], f"cast:{target}", to=kind)

    @staticmethod
    def _halve_attributes(node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(_stored(attribute.t, attribute.t.name))
            elif attribute.name in ("to", "dtype") and attribute.i == _FLOAT:
                attribute.i = _HALF


def _stored(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(tensor)
    finite = np.clip(values, -_LARGEST, _LARGEST)
    return onnx.numpy_helper.from_array(
        np.where(np.isfinite(values), finite, values).astype(np.float16), name
    )
