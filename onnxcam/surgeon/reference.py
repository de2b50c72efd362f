"""Run a second input beside the first, through copies of the network's operators."""

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
    """Write what the network computes of another image, see :func:`with_another`.

    Args:
        b: appends to the graph.
        image: the image tensor.
        wanted: tensors that are wanted; those that depend on the image are computed.
        baseline: every number of the other image, or the image.
    """
    number = b.constant(baseline, image.dtype or ir.DataType.FLOAT)
    other = shaped(b.op("Expand", number, b.op("Shape", image)), image)
    return with_another(b, image, wanted, other)


def with_another(
    b: Builder, source: ir.Value, wanted: Set[ir.Value], other: ir.Value
) -> dict[ir.Value, ir.Value]:
    """Write what the network computes with another value in a tensor's place.

    Returns:
        For each wanted tensor that depends on the source, its value then.

    Raises:
        MethodError: an operator has a graph of its own.
    """
    varying, found = depends_on(b.graph, {source}), {source: other}
    for node in [n for n in b.graph if any(o in varying and o in wanted for o in n.outputs)]:
        if source in node.outputs:
            continue
        if any(True for _ in subgraphs(node)):
            where = describe(node, b.opset)
            raise MethodError(
                f"it runs the network for a second input, and {where} holds a graph of its own. "
                "integrated-gradients takes any network."
            )
        operands = [v if v is None else found.get(v, v) for v in node.inputs]
        kept = {name: attribute.value for name, attribute in node.attributes.items()}
        made = b.op_many(node.op_type, operands, len(node.outputs), node.domain, **kept)
        for own, copy in zip(node.outputs, made, strict=True):
            found[own] = shaped(copy, own)
    return found
