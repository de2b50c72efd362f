"""How the ends of a quantized model are read: the DequantizeLinear at its input and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxcam.compare.facts import Quantized
from onnxcam.model.read import read_model
from onnxcam.surgeon.plan import ImageInput


def quantized_input(path: Path, image: ImageInput) -> Quantized | None:
    """Return scale and zero point of a quantized image input.

    ``None`` where the input holds real numbers, or where nothing says what its integers mean.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    if np.dtype(image.dtype).kind not in "ui":
        return None
    graph = read_model(path).graph
    readers = [n for n in graph.node if image.name in n.input]
    if not readers or any(n.op_type != "DequantizeLinear" for n in readers):
        return None
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    names = [name for name in readers[0].input[1:] if name]
    if any(name not in constants for name in names):
        return None
    scale, *zero = (_one(constants[name]) for name in names)
    if scale is None or None in zero:
        return None
    return Quantized(float(scale), int(zero[0] or 0) if zero else 0)


def quantized_outputs(path: Path) -> list[str]:
    """Return the outputs that join several tensors and are quantized as one.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    graph = read_model(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for output in graph.output:
        node, quantized = makers.get(output.name), False
        while node is not None and node.op_type in _QUANTIZING:
            node, quantized = makers.get(node.input[0]), True
        if node is not None and node.op_type.endswith("Concat") and quantized:
            found.append(output.name)
    return found


_QUANTIZING = ("DequantizeLinear", "QuantizeLinear")


def _one(tensor: onnx.TensorProto) -> float | None:
    """Return a constant of one number."""
    array = numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 else None
