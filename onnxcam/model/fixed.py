"""Put constants in the place of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray


def fix_inputs(proto: onnx.ModelProto, arrays: Mapping[str, NDArray[Any]], image: str) -> None:
    """Replace inputs by constants, in place.

    1. Of an input that takes as many rows as images, however many these are, a single row is
       repeated for each by the graph.
    2. Of one that takes a known number of rows, it is repeated here.
    3. Anything else becomes a constant as it is.

    Args:
        proto: the model.
        arrays: by the names of inputs, of their shapes and types; a single row stands for all.
        image: the name of the image input, which tells how many images there are.
    """
    graph = proto.graph
    inputs = {i.name: i for i in graph.input}
    rows = inputs[image].type.tensor_type.shape.dim[:1]
    batch = rows[0].dim_param if rows else ""
    added: list[onnx.NodeProto] = []
    for name, array in arrays.items():
        first = next(iter(inputs[name].type.tensor_type.shape.dim), None)
        single = array.ndim > 0 and len(array) == 1
        if single and first is not None and first.dim_value > 1:
            array = np.repeat(array, first.dim_value, axis=0)
        if single and first is not None and batch and first.dim_param == batch:
            added += _repeated(graph, name, array, image)
        else:
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        graph.input.remove(inputs[name])
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _repeated(
    graph: onnx.GraphProto, name: str, array: NDArray[Any], image: str
) -> list[onnx.NodeProto]:
    """Return nodes that repeat one row for every image."""
    stored = {"row": array, "from": np.array([0]), "to": np.array([1])}
    stored["rest"] = np.array(array.shape[1:], np.int64)
    for part, value in stored.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}:{part}"))
    make, at = onnx.helper.make_node, [f"{name}:{p}" for p in ("shape", "count", "size")]
    return [
        make("Shape", [image], [at[0]], at[0]),
        make("Slice", [at[0], f"{name}:from", f"{name}:to"], [at[1]], at[1]),
        make("Concat", [at[1], f"{name}:rest"], [at[2]], at[2], axis=0),
        make("Expand", [f"{name}:row", at[2]], [name], f"{name}:fixed"),
    ]
