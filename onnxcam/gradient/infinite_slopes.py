"""Which operators can have an infinite derivative.

Before them a cotangent may be infinite, so masks there must select and not multiply.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant


def has_infinite_slope(node: ir.Node) -> bool:
    """Whether the operator's derivative may be infinite."""
    if node.op_type == "Div":
        return constant(node.inputs[1]) is None
    return has(node, Trait.INFINITE_SLOPE)
