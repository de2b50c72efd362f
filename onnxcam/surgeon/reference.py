"""Run a reference image beside the image, through copies of the network's operators."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.values import depends_on, describe, subgraphs


def beside(
    b: Builder, image: ir.Value, wanted: Set[ir.Value], baseline: float | NDArray[Any]
) -> dict[ir.Value, ir.Value]:
    """Write what the network computes of another image.

    Args:
        b: appends to the graph.
        image: the image tensor.
        wanted: tensors that are wanted; those that depend on the image are computed.
        baseline: every number of the other image, or the image.

    Returns:
        For each of these tensors its value for the other image.

    Raises:
        MethodError: an operator has a graph of its own.
    """
    varying = depends_on(b.graph, {image})
    nodes = [n for n in b.graph if any(o in varying and o in wanted for o in n.outputs)]
    number = b.constant(baseline, image.dtype or ir.DataType.FLOAT)
    found = {image: shaped(b.op("Expand", number, b.op("Shape", image)), image)}
    for node in nodes:
        if any(True for _ in subgraphs(node)):
            where = describe(node, b.opset)
            raise MethodError(
                f"it runs the network for a second image, and {where} holds a graph of its own. "
                "integrated-gradients has a baseline too, and takes any network."
            )
        operands = [v if v is None else found.get(v, v) for v in node.inputs]
        kept = {name: attribute.value for name, attribute in node.attributes.items()}
        made = b.op_many(node.op_type, operands, len(node.outputs), node.domain, **kept)
        for own, copy in zip(node.outputs, made, strict=True):
            found[own] = shaped(copy, own)
    return found
