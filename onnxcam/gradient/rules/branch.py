"""If: the gradient is another If on the same condition.

Each of its branches recomputes the original branch's values and goes back through them. An If has
no differentiable operands; the gradients are those of the values that its branches capture. A
branch that does not depend on such a value gives zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxcam.gradient.backward import Backward, Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.subgraphs import (
    close,
    copy_body,
    opset_inside,
    some_length_of_t,
    zeros,
)
from onnxcam.gradient.registry import whole
from onnxcam.gradient.walker import add_cotangents, pull_back

_BRANCHES = ("then_branch", "else_branch")


def _if(c: Call, gs: Cotangents, wanted: Sequence[ir.Value]) -> list[ir.Value | None]:
    walks = [c.walk.within(c.builder.subgraph(name, [])) for name in _BRANCHES]
    found = [
        _branch(walk, c.node.attributes[name].as_graph(), gs, wanted)
        for walk, name in zip(walks, _BRANCHES, strict=True)
    ]
    reached = [v for i, v in enumerate(wanted) if any(g[i] is not None for g in found)]
    if not reached:
        return [None] * len(wanted)
    graphs: dict[str, Any] = {}
    for walk, name, cotangents in zip(walks, _BRANCHES, found, strict=True):
        own = dict(zip(wanted, cotangents, strict=True))
        builder = walk.builder
        T = some_length_of_t(builder, gs)
        graphs[name] = close(builder, [own[v] or zeros(builder, T, v) for v in reached])
    outputs = c.builder.op_many("If", [c.node.inputs[0]], len(reached), **graphs)
    return [dict(zip(reached, outputs, strict=True)).get(v) for v in wanted]


def _branch(
    walk: Backward, graph: ir.Graph, gs: Cotangents, wanted: Sequence[ir.Value]
) -> list[ir.Value | None]:
    copies = copy_body(walk.builder, graph, {})
    outputs = [copies.get(v, v) for v in graph.outputs]
    seeds = add_cotangents(walk.builder, zip(outputs, gs, strict=True))
    return pull_back(walk, list(walk.builder.graph), seeds, wanted)


whole("If", _if, opset=opset_inside)
