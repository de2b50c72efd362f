"""Formulas: values whose Python operators append ONNX operators.

``g * (1.0 - y * y)`` appends Mul, Sub and Mul; numbers become constants of the node's own type.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Maker


class Term:
    """A value in a formula."""

    __slots__ = ("call", "value")

    def __init__(self, call: Call, value: ir.Value) -> None:
        self.call, self.value = call, value

    def op(self, op_type: str, *operands: Term | float) -> Term:
        """Append an operator of this term and others."""
        return Term(self.call, self.call.op(op_type, self.value, *map(self._value, operands)))

    def _value(self, operand: Term | float) -> ir.Value:
        return operand.value if isinstance(operand, Term) else self.call.like(operand)

    def _after(self, op_type: str, number: float) -> Term:
        """Append an operator of a number and this term."""
        return Term(self.call, self.call.op(op_type, self.call.like(number), self.value))

    def __add__(self, other: Term | float) -> Term:
        return self.op("Add", other)

    def __radd__(self, number: float) -> Term:
        return self._after("Add", number)

    def __sub__(self, other: Term | float) -> Term:
        return self.op("Sub", other)

    def __rsub__(self, number: float) -> Term:
        return self._after("Sub", number)

    def __mul__(self, other: Term | float) -> Term:
        return self.op("Mul", other)

    def __rmul__(self, number: float) -> Term:
        return self._after("Mul", number)

    def __truediv__(self, other: Term | float) -> Term:
        return self.op("Div", other)

    def __neg__(self) -> Term:
        return self.op("Neg")

    def __abs__(self) -> Term:
        return self.op("Abs")

    def __gt__(self, other: Term | float) -> Term:
        return self.op("Greater", other)

    def __lt__(self, other: Term | float) -> Term:
        return self.op("Less", other)

    def __and__(self, other: Term) -> Term:
        return self.op("And", other)

    def __or__(self, other: Term) -> Term:
        return self.op("Or", other)


def _function(op_type: str) -> Callable[[Term], Term]:
    return lambda term: term.op(op_type)


cos, sin, cosh, sinh, tanh = map(_function, ("Cos", "Sin", "Cosh", "Sinh", "Tanh"))
exp, erf, sqrt, sigmoid, softplus = map(_function, ("Exp", "Erf", "Sqrt", "Sigmoid", "Softplus"))
sign, rounded = map(_function, ("Sign", "Round"))


def where(condition: Term, yes: Term | float, no: Term | float) -> Term:
    """Append Where."""
    return condition.op("Where", yes, no)


def passed(g: Term, condition: Term) -> Term:
    """Return ``g`` where the condition holds and 0 elsewhere."""
    return Term(g.call, g.call.mask(condition.value, g.value))


def indicator(condition: Term) -> Term:
    """Return 1 where the condition holds and 0 elsewhere, in the node's own type."""
    call = condition.call
    return Term(call, call.op("Cast", condition.value, to=call.kind))


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
