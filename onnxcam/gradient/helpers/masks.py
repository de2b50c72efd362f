"""Masks: pass a cotangent where an activation lies between two bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.graph.values import constant

Bounds = tuple[float | None, float | None]
Mask = Callable[[Call, ir.Value, float | None, float | None], ir.Value]


def passed_inside(c: Call, g: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """Return ``g`` where ``low < y < high`` and 0 elsewhere; ``y`` is never outside the bounds."""
    if (low is None and high is None) or c.node in c.walk.masked:
        return g
    if low == 0.0 and high is None:  # y >= 0, so y > 0 is y cast to bool
        return c.mask(c.op("Cast", c.y, to=ir.DataType.BOOL), g)
    return compared(c, g, *(None if b is None else c.like(b) for b in (low, high)))


def compared(c: Call, g: ir.Value, low: ir.Value | None, high: ir.Value | None) -> ir.Value:
    """As :func:`passed_inside`, for bounds that may be computed at run time."""
    between = None
    for bound, compare in ((low, "Greater"), (high, "Less")):
        if bound is not None:
            side = c.op(compare, c.y, bound)
            between = side if between is None else c.op("And", between, side)
    return g if between is None else c.mask(between, g)


def masked_early(c: Call, g: ir.Value, mask: Mask = passed_inside) -> ir.Value:
    """Apply the mask of the rectifier before a MaxPool to the MaxPool's own cotangent.

    A cotangent reaches only the maximum of each window, whose value is ``y``. So masking by
    ``y`` does the same, on fewer elements.
    """
    x = c.x(0)
    before = rectifiers_before(x)
    if before is None:
        return g
    nodes, bounds = before
    joined = {node.outputs[0] for node in nodes} | {x}
    if is_wanted(c, nodes, x) or any(len(v.uses()) > 1 for v in joined):
        return g  # other cotangents arrive there as well
    if not gate(c, nodes):
        return g
    c.walk.masked.update(nodes)
    return mask(c, g, *bounds)


def gate(c: Call, rectifiers: Sequence[ir.Node]) -> bool:
    """Whether this walk blocks the cotangents where the rectifiers are flat."""
    rules = [c.walk.rule_for(node) for node in rectifiers]
    return all(rule is not None and rule.gates for rule in rules)


def is_wanted(c: Call, nodes: Sequence[ir.Node], x: ir.Value) -> bool:
    """Whether the walk starts or ends at the rectifiers, their bounds or the value joining them."""
    around = {v for node in nodes for v in (*node.outputs, *node.inputs[1:])} | {x}
    return not around.isdisjoint(c.walk.ends)


def rectifiers_before(x: ir.Value) -> tuple[list[ir.Node], Bounds] | None:
    """Return the rectifiers, with equal bounds, whose result ``x`` is or whose results it joins."""
    node = x.producer()
    if node is None or node.domain:
        return None
    joined = node.op_type == "Concat"
    nodes = [v.producer() for v in node.inputs if v is not None] if joined else [node]
    bounds = [None if n is None or n.domain else rectifier_bounds(n) for n in nodes]
    if bounds[0] is None or any(b != bounds[0] for b in bounds):
        return None
    return [n for n in nodes if n is not None], bounds[0]


def rectifier_bounds(node: ir.Node) -> Bounds | None:
    """Return the bounds of a Relu, or of a Clip with stored bounds; else ``None``."""
    if node.op_type == "Relu":
        return 0.0, None
    if node.op_type != "Clip":
        return None
    operands = [node.inputs[i] if i < len(node.inputs) else None for i in (1, 2)]
    stored = [constant(v) for v in operands]
    for value, array in zip(operands, stored, strict=True):
        if value is not None and (array is None or array.size != 1):
            return None
    low, high = (None if array is None else float(array.item()) for array in stored)
    return low, high
