"""onnx's shape inference, and what it lacks for subgraphs and Attention.

Inside a subgraph it does not see the constants of the graphs around it, so subgraphs get copies.
It infers no shapes for the states of a Loop, since the standard lets each iteration change them.
Here the initial shape of a state is assumed in the body; the lengths that one iteration keeps hold
in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx.helper
import onnx.shape_inference

from onnxcam.graph.protos import subgraphs

Types = Mapping[str, onnx.TypeProto]
Tensors = Mapping[str, onnx.TensorProto]
_SMALL = 64  # elements; shapes do not depend on larger constants


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model``, which is changed, with the types and shapes that can be inferred.

    Use it for these alone: its subgraphs have copies of outer constants.
    """
    _copy_constants(model.graph, {})
    known = _infer(model)
    opened = _open_attention(model.graph, known.graph)
    if opened:
        known = _infer(model)
        known.graph.value_info.extend(opened)
    while True:
        states = list(_states(known.graph, {}))
        assumed = [i for i, state in enumerate(states) if state.assume()]
        while assumed:
            made = list(_states(_infer(known).graph, {}))
            changed = [states[i].doubt(made[i]) for i in assumed]
            if not any(changed):
                break
        if not any(states[i].before.HasField("shape") for i in assumed):
            return known
        known = _infer(known)


def _open_attention(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Replace Attention on unknown lengths by new inputs; return these.

    onnx 1.23 computes with unknown lengths there as if they were 0.
    """
    infos = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    opened = []
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Attention" or node.domain:
            continue
        read, made = (
            [infos[n] for n in names if n in infos] for names in (node.input, node.output)
        )
        if any(map(_empty_axes, read)) or not any(map(_empty_axes, made)):
            continue
        for info in made:
            for axis in _empty_axes(info):
                axis.Clear()
        opened += made
        del graph.node[index]
    graph.input.extend(opened)
    return opened


def _empty_axes(info: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    lengths = info.type.tensor_type.shape.dim
    return [d for d in lengths if d.HasField("dim_value") and d.dim_value == 0]


def _copy_constants(graph: onnx.GraphProto, outer: Tensors) -> None:
    """Give subgraphs the small constants that they read."""
    small = (t for t in graph.initializer if math.prod(t.dims) <= _SMALL)
    known = {**outer, **{t.name: t for t in small}}
    for node in graph.node:
        for inner in subgraphs(node):
            own = {t.name for t in inner.initializer}
            read = dict.fromkeys(name for n in inner.node for name in n.input)
            inner.initializer.extend(known[n] for n in read if n in known and n not in own)
            _copy_constants(inner, known)


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)


@dataclass(frozen=True)
class _State:
    """The types of a Loop's state: initial, before and after an iteration, and as an output."""

    initial: onnx.TypeProto | None
    before: onnx.TypeProto.Tensor
    after: onnx.TypeProto.Tensor
    output: onnx.TypeProto.Tensor

    def assume(self) -> bool:
        """Assume the initial shape in every iteration, unless one is declared."""
        if self.initial is None or not self.initial.tensor_type.HasField("shape"):
            return False
        if self.before.HasField("shape") or self.output.HasField("shape"):
            return False
        self.before.CopyFrom(self.initial.tensor_type)
        self.output.CopyFrom(self.before)
        return True

    def doubt(self, made: _State) -> bool:
        """Forget the lengths that an iteration changed; return whether there were any."""
        known = self.before.SerializeToString()
        for other in (made.after, made.initial and made.initial.tensor_type):
            _narrow(self.before, other)
        self.output.CopyFrom(self.before)
        return bool(known != self.before.SerializeToString())


def _narrow(kind: onnx.TypeProto.Tensor, other: onnx.TypeProto.Tensor | None) -> None:
    """Forget the lengths that differ from those of another type."""
    lengths = kind.shape.dim
    if other is None or not other.HasField("shape") or len(lengths) != len(other.shape.dim):
        kind.ClearField("shape")
        return
    for length, theirs in zip(lengths, other.shape.dim, strict=True):
        if length != theirs:
            length.Clear()


def _states(graph: onnx.GraphProto, outer: Types) -> Iterator[_State]:
    """Yield the states of every Loop, those in subgraphs included."""
    infos = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    types = {**outer, **{name: info.type for name, info in infos.items()}}
    for tensor in graph.initializer:
        kind = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        types.setdefault(tensor.name, kind)
    for node in graph.node:
        inner = list(subgraphs(node))
        if node.op_type == "Loop" and not node.domain:
            # Inputs before the states: trip count and condition; outputs: the condition.
            befores, afters = inner[0].input[2:], inner[0].output[1:]
            for i, name in enumerate(node.input[2:]):
                before, after = befores[i].type.tensor_type, afters[i].type.tensor_type
                output = infos.get(node.output[i]) or onnx.ValueInfoProto()
                yield _State(types.get(name), before, after, output.type.tensor_type)
        for body in inner:
            yield from _states(body, types)
