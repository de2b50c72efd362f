"""Operators that write updates into a tensor.

Without a reduction, the cotangent of a result goes back to the element of ``data`` or ``updates``
that it holds. The operator tells which, run on element ids (those of ``data`` come first).
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import element_ids, scatter_by_ids
from onnxcam.gradient.helpers.lengths import combine, vector, volume
from onnxcam.gradient.registry import rule


def _sources(c: Call, updates: int) -> ir.Value:
    """Return the id of the element that each result holds; ``updates`` is that operand's index."""
    inputs = list(c.node.inputs)
    inputs[0] = element_ids(c, c.x(0))
    inputs[updates] = element_ids(c, c.x(updates), start=volume(c, c.x(0)))
    return c.builder.copy(c.node, inputs)


def _kept(c: Call, g: ir.Value, updates: int) -> ir.Value:
    """Return ddata: g where data was not overwritten."""
    return c.mask(c.op("Less", _sources(c, updates), vector(c, volume(c, c.x(0)))), g)


def _written(c: Call, g: ir.Value, updates: int) -> ir.Value:
    """Return dupdates: g goes to the update that the result holds, also where several met."""
    start = volume(c, c.x(0))
    size = combine(c, "Add", start, volume(c, c.x(updates)))
    both = scatter_by_ids(c, g, _sources(c, updates), size, distinct=True)
    axis = c.builder.ints(1)
    return c.split_t(c.op("Slice", both, vector(c, start), vector(c, size), axis), c.x(updates))


rule("TensorScatter", lambda c, g: _kept(c, g, 1), lambda c, g: _written(c, g, 1), opset=24)


def _targets(c: Call) -> ir.Value:
    """Return the id of the element of data that each update goes to."""
    every = element_ids(c, c.x(0))
    if c.node.op_type == "ScatterND":
        return c.op("GatherND", every, c.x(1))
    return c.op("GatherElements", every, c.x(1), axis=int(c.attribute("axis", 0)))


def _at(c: Call, value: ir.Value, targets: ir.Value) -> ir.Value:
    """Return the element of ``value``, flat or shaped as data, that each update meets."""
    return c.op("Gather", c.op("Reshape", value, c.builder.ints(-1)), targets, axis=0)


def _combined(c: Call, targets: ir.Value, values: ir.Value, first: ir.Value, how: str) -> ir.Value:
    """Reduce, for each element of data, ``first`` and the values that go there; flat.

    ScatterElements stands for ScatterND too: it keeps the order, while ONNX Runtime spreads a
    ScatterND over threads.
    """
    flat = c.builder.ints(-1)
    start = c.op("Expand", first, vector(c, volume(c, c.x(0))))
    index, updates = c.op("Reshape", targets, flat), c.op("Reshape", values, flat)
    return c.op("ScatterElements", start, index, updates, axis=0, reduction=how)


def _data(c: Call, g: ir.Value) -> ir.Value:
    """Return ddata: g for add, g * factors for mul, g where data is the max or min."""
    how = c.attribute("reduction", "none")
    if how == "none":
        return _kept(c, g, 2)
    if how == "add":
        return g
    if how == "mul":
        factors = _combined(c, _targets(c), c.x(2), c.like(1.0), "mul")
        return c.op("Mul", g, c.op("Reshape", factors, c.builder.shape(c.x(0))))
    return c.mask(c.op("Equal", c.x(0), c.y), g)


def _updates(c: Call, g: ir.Value) -> ir.Value:
    how = c.attribute("reduction", "none")
    if how == "none":
        return _written(c, g, 2)
    targets = _targets(c)
    met = c.op("Gather", c.op("Reshape", g, c.builder.ints(0, -1)), targets, axis=1)
    if how == "add":
        return met
    if how == "mul":
        return c.op("Mul", met, _other_factors(c, targets))
    return c.mask(_first_extreme(c, targets), met)


def _other_factors(c: Call, targets: ir.Value) -> ir.Value:
    """Return, for each update, the product of the data and the other updates that it meets.

    To divide by the update itself, those that are 0 are left out of the product and counted.
    """
    u = c.x(2)
    zero = c.op("Equal", u, c.like(0.0))
    factor, count = c.op("Where", zero, c.like(1.0), u), c.op("Cast", zero, to=c.kind)
    product = _at(c, _combined(c, targets, factor, c.like(1.0), "mul"), targets)
    zeros = _at(c, _combined(c, targets, count, c.like(0.0), "add"), targets)
    others = c.op("Mul", c.op("Div", product, factor), _at(c, c.x(0), targets))
    return c.op("Where", c.op("Equal", zeros, count), others, c.like(0.0))


def _first_extreme(c: Call, targets: ir.Value) -> ir.Value:
    """Whether an update is the first to hold the extreme; data comes before all updates."""
    u, extreme = c.x(2), _at(c, c.y, targets)
    by_data = c.op("Equal", _at(c, c.x(0), targets), extreme)
    hit = c.op("And", c.op("Equal", u, extreme), c.op("Not", by_data))
    order, last = element_ids(c, u), vector(c, volume(c, u))
    first = _combined(c, targets, c.op("Where", hit, order, last), last, "min")
    return c.op("And", hit, c.op("Equal", order, _at(c, first, targets)))


rule("ScatterElements ScatterND", _data, None, _updates)
