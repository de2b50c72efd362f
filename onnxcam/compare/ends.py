"""How the ends of a quantized model are read: the DequantizeLinear at its input and outputs."""

from __future__ import annotations

from dataclasses import dataclass
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
    constants = _constants(graph)
    names = [name for name in readers[0].input[1:] if name]
    if any(name not in constants for name in names):
        return None
    scale, *zero = (_one(constants[name]) for name in names)
    if scale is None or None in zero:
        return None
    return Quantized(float(scale), int(zero[0] or 0) if zero else 0)


@dataclass(frozen=True)
class QuantizedEnd:
    """An output that is quantized.

    Attributes:
        output: its name.
        behind: the operator whose numbers are quantized.
        step: how far apart two numbers lie that it can hold.
        reach: the largest number that it can hold.
    """

    output: str
    behind: str
    step: float
    reach: float


def quantized_outputs(path: Path) -> list[QuantizedEnd]:
    """Return the outputs that one scale quantizes.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    graph = read_model(path).graph
    makers, constants = {n: node for node in graph.node for n in node.output}, _constants(graph)
    found = []
    for output in graph.output:
        node, scale, zero = makers.get(output.name), None, None
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            scale, zero = (constants.get(n) for n in [*node.input[1:3], ""][:2])
            node = makers.get(node.input[0])
        step = None if scale is None else _one(scale)
        if node is None or step is None:
            continue
        integers = np.zeros(1, np.uint8) if zero is None else numpy_helper.to_array(zero)
        reach = (np.iinfo(integers.dtype).max - int(integers.reshape(-1)[0])) * step
        found.append(QuantizedEnd(output.name, node.op_type, step, reach))
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def _one(tensor: onnx.TensorProto) -> float | None:
    """Return a constant of one number."""
    array = numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 else None
