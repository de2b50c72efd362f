"""Operators that write updates into a tensor.

Without a reduction, the elements of ``data`` and ``updates`` that survive keep their cotangent.
Run on the elements' numbers, data first, the operator itself says which do.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import element_ids, scatter_by_ids
from onnxcam.gradient.helpers.lengths import combine, vector, volume
from onnxcam.gradient.registry import rule


def _sources(c: Call, updates: int) -> ir.Value:
    """Return which element each result is; ``updates`` is the operand with that name."""
    inputs = list(c.node.inputs)
    inputs[0] = element_ids(c, c.x(0))
    inputs[updates] = element_ids(c, c.x(updates), start=volume(c, c.x(0)))
    return c.builder.copy(c.node, inputs)


def _kept(c: Call, g: ir.Value, updates: int) -> ir.Value:
    """The cotangent of data that was not written over."""
    return c.mask(c.op("Less", _sources(c, updates), vector(c, volume(c, c.x(0)))), g)


def _written(c: Call, g: ir.Value, updates: int) -> ir.Value:
    """The cotangent of updates; of several at one place, the one that the runtime kept has it."""
    start = volume(c, c.x(0))
    size = combine(c, "Add", start, volume(c, c.x(updates)))
    both = scatter_by_ids(c, g, _sources(c, updates), size, distinct=True)
    axis = c.builder.ints(1)
    return c.split_t(c.op("Slice", both, vector(c, start), vector(c, size), axis), c.x(updates))


rule("TensorScatter", lambda c, g: _kept(c, g, 1), lambda c, g: _written(c, g, 1), opset=24)


def _places(c: Call) -> ir.Value:
    """Return the number of the element of data that each update goes to."""
    every = element_ids(c, c.x(0))
    if c.node.op_type == "ScatterND":
        return c.op("GatherND", every, c.x(1))
    return c.op("GatherElements", every, c.x(1), axis=int(c.attribute("axis", 0)))


def _at(c: Call, value: ir.Value, places: ir.Value) -> ir.Value:
    """Return what each update meets in ``value``, a vector or of the shape of data."""
    return c.op("Gather", c.op("Reshape", value, c.builder.ints(-1)), places, axis=0)


def _combined(c: Call, places: ir.Value, values: ir.Value, first: ir.Value, how: str) -> ir.Value:
    """Combine the values that go to the same place with ``first``; one result for each of data.

    ScatterElements does it in order also where the node is a ScatterND, which ONNX Runtime
    spreads over threads.
    """
    flat = c.builder.ints(-1)
    start = c.op("Expand", first, vector(c, volume(c, c.x(0))))
    index, updates = c.op("Reshape", places, flat), c.op("Reshape", values, flat)
    return c.op("ScatterElements", start, index, updates, axis=0, reduction=how)


def _data(c: Call, g: ir.Value) -> ir.Value:
    """Data passes what is added to it whole, times what it is multiplied with, or where it is
    the extreme.
    """
    how = c.attribute("reduction", "none")
    if how == "none":
        return _kept(c, g, 2)
    if how == "add":
        return g
    if how == "mul":
        factors = _combined(c, _places(c), c.x(2), c.like(1.0), "mul")
        return c.op("Mul", g, c.op("Reshape", factors, c.builder.shape(c.x(0))))
    return c.mask(c.op("Equal", c.x(0), c.y), g)


def _updates(c: Call, g: ir.Value) -> ir.Value:
    how = c.attribute("reduction", "none")
    if how == "none":
        return _written(c, g, 2)
    places = _places(c)
    met = c.op("Gather", c.op("Reshape", g, c.builder.ints(0, -1)), places, axis=1)
    if how == "add":
        return met
    if how == "mul":
        return c.op("Mul", met, _other_factors(c, places))
    return c.mask(_first_extreme(c, places), met)


def _other_factors(c: Call, places: ir.Value) -> ir.Value:
    """Return, for each update, the product of the data and the other updates at its place.

    Division is safe once the updates that are 0 are left out and counted.
    """
    u = c.x(2)
    zero = c.op("Equal", u, c.like(0.0))
    factor, count = c.op("Where", zero, c.like(1.0), u), c.op("Cast", zero, to=c.kind)
    product = _at(c, _combined(c, places, factor, c.like(1.0), "mul"), places)
    zeros = _at(c, _combined(c, places, count, c.like(0.0), "add"), places)
    others = c.op("Mul", c.op("Div", product, factor), _at(c, c.x(0), places))
    return c.op("Where", c.op("Equal", zeros, count), others, c.like(0.0))


def _first_extreme(c: Call, places: ir.Value) -> ir.Value:
    """Whether an update is the extreme at its place, and the first to be so; data comes first."""
    u, extreme = c.x(2), _at(c, c.y, places)
    taken = c.op("Equal", _at(c, c.x(0), places), extreme)
    hit = c.op("And", c.op("Equal", u, extreme), c.op("Not", taken))
    order, last = element_ids(c, u), vector(c, volume(c, u))
    first = _combined(c, places, c.op("Where", hit, order, last), last, "min")
    return c.op("And", hit, c.op("Equal", order, _at(c, first, places)))


rule("ScatterElements ScatterND", _data, None, _updates)
