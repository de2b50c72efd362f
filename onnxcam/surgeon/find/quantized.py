"""Read quantized tensors of a graph as the numbers that they stand for.

In a graph of quantized operators, maps and scores are quantized: ``q`` stands for ``(q - z) s``.
What is explained must be a floating-point tensor on the way to the score. So a quantized tensor is
dequantized right where it is computed and quantized again, which gives back the same values.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.graph.operators import Trait, has, scale_operand
from onnxcam.graph.values import dims, is_float

_FLOAT = ir.DataType.FLOAT
DEQUANTIZED = ":decoded"  # suffix of the name of a dequantized tensor


def scale_and_zero_point(value: ir.Value) -> tuple[ir.Value, ir.Value | None] | None:
    """Return scale and zero point of a quantized tensor; ``None`` unless there is one of each."""
    while (node := value.producer()) is not None:
        if has(node, Trait.KEEPS_SCALE):
            source = node.inputs[0]
            if source is None:
                return None
            value = source
            continue
        index = scale_operand(node)
        if index is None or value is not node.outputs[0]:
            return None
        scale, zero = (*node.inputs, None, None)[index : index + 2]
        sizes = None if scale is None else dims(scale)
        if scale is None or sizes is None or any(d != 1 for d in sizes):
            return None
        return scale, zero
    return None


def as_numbers(graph: ir.Graph, value: ir.Value, opset: int) -> ir.Value:
    """Return ``value`` itself when it is floating point, else the numbers that it stands for.

    Every reader of ``value`` then reads these numbers, quantized again.
    """
    found = None if is_float(value) else scale_and_zero_point(value)
    producer = value.producer()
    if found is None or producer is None:
        return value
    scale, zero = found
    builder = Builder(graph, opset)
    if zero is None:
        kind = value.dtype or ir.DataType.UINT8
        zero = builder.constant(np.zeros(dims(scale) or (), kind.numpy()))
    numbers = ir.node("DequantizeLinear", [value, scale, zero], name=builder.name("numbers"))
    again = ir.node("QuantizeLinear", [numbers.outputs[0], scale, zero], name=builder.name("again"))
    numbers.outputs[0].name = f"{value.name}{DEQUANTIZED}"
    numbers.outputs[0].shape, numbers.outputs[0].dtype = value.shape, scale.dtype or _FLOAT
    again.outputs[0].name = again.name
    again.outputs[0].shape, again.outputs[0].type = value.shape, value.type
    for use in tuple(value.uses()):
        if use.node is not numbers:
            use.node.replace_input_with(use.idx, again.outputs[0])
    graph.insert_after(producer, [numbers, again])
    return numbers.outputs[0]


def last_quantizers(score: ir.Value) -> set[ir.Node]:
    """Return the quantizing nodes between the last linear layer and the class scores.

    Their range clips scores that are higher than any in the calibration. As with Softmax, the
    score before that is explained.
    """
    found: set[ir.Node] = set()
    value: ir.Value | None = score
    while value is not None and (node := value.producer()) is not None:
        operands = [v for v in node.inputs if v is not None]
        if has(node, Trait.KEEPS_SCALE) or node.op_type == "DequantizeLinear":
            value = node.inputs[0]
        elif node.op_type == "QuantizeLinear":
            found.add(node)
            value = node.inputs[0]
        elif node.op_type in ("Add", "QLinearAdd"):
            computed = [v for v in operands if v.const_value is None]
            value = computed[0] if len(computed) == 1 else None
            found |= {node} if node.op_type == "QLinearAdd" else set()
        else:
            space = (dims(node.outputs[0]) or [])[2:]
            quantized = has(node, Trait.LINEAR) and scale_operand(node) is not None
            dense = not has(node, Trait.CONVOLUTION) or all(d == 1 for d in space)
            return found | ({node} if quantized and dense else set())
    return found
