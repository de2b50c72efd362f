"""A model without its large weights, for functions of ``onnx`` that copy the whole model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.helper

SMALL_BYTES = 4096  # larger weights are left out


def nbytes(tensor: onnx.TensorProto) -> int:
    """Return an upper bound of a tensor's size."""
    return int(np.prod(tensor.dims, dtype=np.int64)) * 8


def without_weights(
    proto: onnx.ModelProto, act: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> onnx.ModelProto:
    """Apply ``act`` to the model with its large weights as plain inputs, then put them back."""
    bare, weights = skeleton(proto)
    result = act(bare)
    kept = [i for i in result.graph.input if i.name not in weights]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(weights.values())
    return result


def skeleton(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return a copy whose large initializers are inputs, and those initializers by name."""
    copy, graph = onnx.ModelProto(), onnx.GraphProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            continue
        try:
            getattr(copy, field.name).extend(value)  # a repeated field
        except AttributeError:
            setattr(copy, field.name, value)
    source = proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.sparse_initializer.extend(source.sparse_initializer)
    inputs = {i.name for i in source.input}
    weights: dict[str, onnx.TensorProto] = {}
    for tensor in source.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and nbytes(tensor) <= SMALL_BYTES:
            graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor
        if tensor.name not in inputs:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    copy.graph.CopyFrom(graph)
    return copy, weights


def drop_initializer_inputs(proto: onnx.ModelProto) -> None:
    """Remove weights from the inputs, where IR 3 lists them; the runtime does not fold inputs."""
    weights = {t.name for t in proto.graph.initializer}
    kept = [i for i in proto.graph.input if i.name not in weights]
    if len(kept) != len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
