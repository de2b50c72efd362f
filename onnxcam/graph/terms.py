"""Formulas: values whose Python operators append ONNX operators.

``g * (1.0 - y * y)`` appends Sub, Mul and Mul; numbers become constants of the formula's type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import onnx_ir as ir


class Writer(Protocol):
    """Where a formula is written."""

    @property
    def op(self) -> Callable[..., ir.Value]:
        """Append one node and return its output."""

    def like(self, number: float) -> ir.Value:
        """Return a scalar constant of the formula's type."""


class Term:
    """A value in a formula."""

    __slots__ = ("value", "writer")

    def __init__(self, writer: Writer, value: ir.Value) -> None:
        self.writer, self.value = writer, value

    def op(self, op_type: str, *operands: Term | float, **attributes: Any) -> Term:
        """Append an operator of this term and others."""
        values = map(self._value, operands)
        return Term(self.writer, self.writer.op(op_type, self.value, *values, **attributes))

    def _value(self, operand: Term | float) -> ir.Value:
        return operand.value if isinstance(operand, Term) else self.writer.like(operand)

    def _after(self, op_type: str, number: float) -> Term:
        """Append an operator of a number and this term."""
        return Term(self.writer, self.writer.op(op_type, self.writer.like(number), self.value))

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
