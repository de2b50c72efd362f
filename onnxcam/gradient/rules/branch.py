"""If: the gradient is another If on the same condition.

Its branches compute the branch's values a second time and go back through them. An If has no
differentiable operands: what its branches capture is wanted. A branch that does not depend on
such a value hands it zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxcam.gradient.helpers.subgraphs import (
    add_seeds,
    close,
    copy_body,
    inner_opset,
    leading,
    zeros,
)
from onnxcam.gradient.registry import Call, whole
from onnxcam.gradient.walker import pull_back
from onnxcam.graph.builder import Builder

_BRANCHES = ("then_branch", "else_branch")


def _if(
    c: Call, gs: Sequence[ir.Value | None], wanted: Sequence[ir.Value]
) -> list[ir.Value | None]:
    builders = [c.builder.inner(name, []) for name in _BRANCHES]
    found = [
        _branch(builder, c.node.attributes[name].as_graph(), gs, wanted)
        for builder, name in zip(builders, _BRANCHES, strict=True)
    ]
    reached = [v for i, v in enumerate(wanted) if any(g[i] is not None for g in found)]
    if not reached:
        return [None] * len(wanted)
    graphs: dict[str, Any] = {}
    for builder, name, cotangents in zip(builders, _BRANCHES, found, strict=True):
        own = dict(zip(wanted, cotangents, strict=True))
        count = leading(builder, gs)
        graphs[name] = close(builder, [own[v] or zeros(builder, count, v) for v in reached])
    outputs = c.builder.op_many("If", [c.node.inputs[0]], len(reached), **graphs)
    return [dict(zip(reached, outputs, strict=True)).get(v) for v in wanted]


def _branch(
    builder: Builder,
    graph: ir.Graph,
    gs: Sequence[ir.Value | None],
    wanted: Sequence[ir.Value],
) -> list[ir.Value | None]:
    copies = copy_body(builder, graph, {})
    outputs = [copies.get(v, v) for v in graph.outputs]
    seeds = add_seeds(builder, zip(outputs, gs, strict=True))
    return pull_back(builder, list(builder.graph), seeds, wanted)


whole("If", _if, opset=inner_opset)
