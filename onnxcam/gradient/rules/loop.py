"""Loop: rewritten as a Scan, where the number of iterations is known before it starts.

A Loop may also stop at a condition that an iteration computes, or change the shapes of its
states. A Scan can do neither, so the gradient of such a Loop is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.subgraphs import close, copy_body, copy_inputs, opset_inside
from onnxcam.gradient.registry import expansion
from onnxcam.gradient.rules.scan import Slices, scan_node
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import constant, dims

_REFUSES = (
    "how often it repeats depends on what it computes",
    "it has no trip count",
    "its state '{}' is not a tensor",
    "its state '{}' changes its shape",
)


def _loop(c: Call) -> Sequence[ir.Value | None]:
    b, body = c.builder, c.node.attributes["body"].as_graph()
    initial = [v for v in c.node.inputs[2:] if v is not None]
    for state in body.inputs[2:]:
        if not isinstance(state.type, (ir.TensorType, type(None))):
            raise c.refuse(_REFUSES[2], state.name)
    count = _count(c, body)
    known = constant(count)
    if known is not None and known > 0:
        return _scan(c, b, body, count, initial)

    # A Scan needs at least one iteration.
    some, none = b.subgraph("some", []), b.subgraph("none", [])
    close(some, _scan(c, some, body, count, initial))
    empty = [_empty(none, v) for v in body.outputs[len(initial) + 1 :]]
    close(none, [*initial, *empty])
    return b.op_many(
        "If",
        [b.op("Greater", count, b.constant(0))],
        len(c.node.outputs),
        then_branch=some.graph,
        else_branch=none.graph,
    )


def _count(c: Call, body: ir.Graph) -> ir.Value:
    """Return the number of iterations, an int64 scalar."""
    b, trips, condition = c.builder, c.operand(0), c.operand(1)
    if not _holds(body.outputs[0], body.inputs[1]):
        raise c.refuse(_REFUSES[0])
    if trips is None:
        raise c.refuse(_REFUSES[1])
    begins = np.array(True) if condition is None else constant(condition)
    known = constant(trips)
    count = b.constant(known.item()) if known is not None else b.op("Reshape", trips, b.ints())
    if begins is None:
        return b.op("Where", b.op("Reshape", condition, b.ints()), count, b.constant(0))
    return count if begins.all() else b.constant(0)


def _holds(condition: ir.Value | None, before: ir.Value) -> bool:
    """Whether a condition is true whenever the one before it is."""
    if condition is before:
        return True
    known, node = constant(condition), None if condition is None else condition.producer()
    if known is not None:
        return bool(known.all())
    if node is None or node.op_type not in ("Identity", "Cast", "And"):
        return False
    return all(_holds(v, before) for v in node.inputs)


def _scan(
    c: Call, b: Builder, body: ir.Graph, count: ir.Value, initial: Sequence[ir.Value]
) -> Sequence[ir.Value]:
    """Append a Scan over the iteration numbers 0, 1, ..."""
    last = last_node(b.graph)
    iteration = b.subgraph("iteration", [])
    number, _, *states = copy_inputs(iteration, body)
    number.shape = ir.Shape([])
    iteration.graph.inputs.extend([*states, number])
    condition = iteration.constant(np.array(True))
    known = dict(zip(body.inputs, [number, condition, *states], strict=True))
    known = copy_body(iteration, body, known)
    close(iteration, [known.get(v, v) for v in body.outputs[1:]])

    numbers = b.op("Range", b.constant(0), count, b.constant(1))
    slices = [Slices()] * (len(body.outputs) - 1 - len(initial))
    outputs = scan_node(b, iteration.graph, initial, [(numbers, Slices())], slices)
    infer_appended(b, appended(b.graph, last))
    for before, after, value in zip(states, iteration.graph.outputs, initial, strict=False):
        shapes = [s for s in map(dims, (value, before, after)) if s is not None]
        if any(not _may_equal(shapes[0], s) for s in shapes):
            raise c.refuse(_REFUSES[3], value.name)
    return outputs


def _may_equal(a: Sequence[int | str | None], b: Sequence[int | str | None]) -> bool:
    pairs = zip(a, b, strict=False)
    known = [(x, y) for x, y in pairs if isinstance(x, int) and isinstance(y, int)]
    return len(a) == len(b) and all(x == y for x, y in known)


def _empty(builder: Builder, like: ir.Value) -> ir.Value:
    """Return the stacked output of no iterations: an empty tensor."""
    rank = len(dims(like) or [])
    return builder.constant(np.zeros([0] * (rank + 1)), like.dtype or ir.DataType.FLOAT)


expansion("Loop", _loop, opset=opset_inside, refuses=_REFUSES)
