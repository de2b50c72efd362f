"""Rewrite gradients of one cotangent for ONNX Runtime's blocked layout."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.appended import appended
from onnxcam.gradient.blocked.layout import keep_blocked
from onnxcam.gradient.drop_t import drop_t
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import drop_unneeded


def write_blocked(builder: Builder, last: ir.Node | None) -> None:
    """Rewrite what was appended to a graph after the node ``last``; ``T`` is 1."""
    graph = builder.graph
    drop_t(builder, appended(graph, last))
    drop_unneeded(graph, PREFIX)
    keep_blocked(builder, appended(graph, last))
    drop_unneeded(graph, PREFIX)
