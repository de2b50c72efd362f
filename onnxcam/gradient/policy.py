"""What a rectifier does to a cotangent.

``standard`` is the derivative, ``g * (x > 0)``. ``guided`` lets only positive cotangents pass,
``g * (x > 0) * (g > 0)`` (Springenberg et al. 2014, "Striving for Simplicity", section 3.4).
``deconvnet`` rectifies the cotangent and forgets the input, ``g * (g > 0)`` (Zeiler and Fergus
2014, "Visualizing and Understanding Convolutional Networks", section 2.1).
"""

from __future__ import annotations

from typing import get_args

import onnx_ir as ir

from onnxcam.gradient.registry import Call, Maker
from onnxcam.graph.builder import Policy
from onnxcam.graph.values import constant, original_name

POLICIES: tuple[Policy, ...] = get_args(Policy)


def is_rectifier(node: ir.Node) -> bool:
    """Whether the node cuts off everything below 0, however the exporter wrote it."""
    if node.op_type == "Relu":
        return True
    if node.op_type == "Clip":
        return _is_zero(node.inputs[1] if len(node.inputs) > 1 else None)
    return node.op_type == "Max" and len(node.inputs) == 2 and any(map(_is_zero, node.inputs))


def _is_zero(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and not array.any()


def rectified(call: Call, g: ir.Value, maker: Maker) -> ir.Value | None:
    """Return the operand's cotangent under the builder's policy."""
    policy = call.builder.policy
    if policy == "standard" or not is_rectifier(call.node):
        return maker(call, g)
    call.builder.rectifiers.append(original_name(call.node) or call.y.name or "")
    positive = call.op("Relu", g)
    return positive if policy == "deconvnet" else maker(call, positive)
