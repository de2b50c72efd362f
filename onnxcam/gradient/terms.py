"""Formulas in rules: what they are made of, and the maker that one stands for."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Maker
from onnxcam.graph.terms import Term


def passed(g: Term, condition: Term) -> Term:
    """Return ``g`` where the condition holds and 0 elsewhere."""
    assert isinstance(g.writer, Call)
    return Term(g.writer, g.writer.mask(condition.value, g.value))


def indicator(condition: Term) -> Term:
    """Return 1 where the condition holds and 0 elsewhere, in the node's own type."""
    call = condition.writer
    assert isinstance(call, Call)
    return condition.op("Cast", to=call.kind)


def formula(function: Callable[..., Term]) -> Maker:
    """Return the maker that a formula stands for.

    Its parameters say what it is made of: ``g`` is the cotangent of the result, ``y`` the result,
    ``x`` the first operand and ``x1`` the second; one with a default is an attribute.
    """
    parameters = signature(function).parameters.values()

    def maker(call: Call, g: ir.Value) -> ir.Value:
        return function(**{p.name: _meant(call, g, p) for p in parameters}).value

    return maker


def _meant(call: Call, g: ir.Value, parameter: Parameter) -> object:
    name = parameter.name
    if parameter.default is not Parameter.empty:
        return call.attribute(name, parameter.default)
    if name == "g":
        return Term(call, g)
    return Term(call, call.y if name == "y" else call.x(int(name[1:] or 0)))
