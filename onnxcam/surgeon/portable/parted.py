"""Keep the gradient apart from the network for ONNX Runtime's static quantizer.

1. Weights that the network and its gradient read are read through Identity: per channel, the
   quantizer scales a weight along the axis of its first reader, and fails at the others.
2. So is what the operator Where chooses from: in the format QOperator it leaves Where as it is,
   without what gives back the numbers that another operator quantized.

Runtimes drop Identity.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.builder import PREFIX, Builder

# What onnxruntime.quantization's QLinearOpsRegistry quantizes.
# fmt: off
_QUANTIZED = frozenset((
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gather", "Gemm",
    "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu",
    "Reshape", "Resize", "Sigmoid", "Softmax", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
))
# fmt: on
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def part_from_quantizer(b: Builder) -> set[ir.Node]:
    """Insert Identity into a finished graph, in place; return these nodes."""
    before = set(b.graph)
    own = [n for n in b.graph if b.is_own(n)]
    stored = b.graph.initializers
    for node in own:
        for place, value in enumerate(node.inputs):
            if value is None or node.op_type == "Identity":
                continue
            shared = value.name in stored and not (value.name or "").startswith(PREFIX)
            shared = shared and value.dtype in _FLOATS and value not in b.graph.inputs
            shared = shared and any(not b.is_own(use.node) for use in value.uses())
            maker = value.producer() if node.op_type == "Where" and place > 0 else None
            chosen = maker is not None and maker.op_type in _QUANTIZED
            if shared or chosen:
                node.replace_input_with(place, _apart(b, value))
    b.graph.sort()
    return set(b.graph) - before


def _apart(b: Builder, value: ir.Value) -> ir.Value:
    def make() -> ir.Value:
        made = b.op("Identity", value)
        made.shape, made.type = value.shape, value.type
        return made

    return b.once("apart", value, make)
