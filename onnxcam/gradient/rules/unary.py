"""Functions of one variable: the cotangent times the derivative."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import rule


def _square(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Mul", value, value)


def _plus(c: Call, value: ir.Value, number: float) -> ir.Value:
    return c.op("Add", value, c.like(number))


def _one_minus_square(c: Call, value: ir.Value) -> ir.Value:
    """Return 1 - v^2 as (1 - v) (1 + v), which is exact near 1."""
    return c.op("Mul", c.op("Sub", c.like(1.0), value), _plus(c, value, 1.0))


def _erf(c: Call, g: ir.Value) -> ir.Value:
    """Derivative 2 / sqrt(pi) exp(-x^2)."""
    bell = c.op("Exp", c.op("Neg", _square(c, c.x(0))))
    return c.op("Mul", g, c.op("Mul", bell, c.like(2.0 / math.sqrt(math.pi))))


def _asin(c: Call, g: ir.Value) -> ir.Value:
    """Derivative 1 / sqrt(1 - x^2)."""
    return c.op("Div", g, c.op("Sqrt", _one_minus_square(c, c.x(0))))


def _asinh(c: Call, g: ir.Value) -> ir.Value:
    """Derivative 1 / sqrt(x^2 + 1)."""
    return c.op("Div", g, c.op("Sqrt", _plus(c, _square(c, c.x(0)), 1.0)))


def _acosh(c: Call, g: ir.Value) -> ir.Value:
    """Derivative 1 / sqrt(x^2 - 1), the root split in two so that it is exact near 1."""
    x = c.x(0)
    root = c.op("Mul", c.op("Sqrt", _plus(c, x, -1.0)), c.op("Sqrt", _plus(c, x, 1.0)))
    return c.op("Div", g, root)


rule("Exp", lambda c, g: c.op("Mul", g, c.y))
rule("Log", lambda c, g: c.op("Div", g, c.x(0)))
rule("Sqrt", lambda c, g: c.op("Div", g, c.op("Mul", c.y, c.like(2.0))))
rule("Erf", _erf)

rule("Sin", lambda c, g: c.op("Mul", g, c.op("Cos", c.x(0))))
rule("Cos", lambda c, g: c.op("Neg", c.op("Mul", g, c.op("Sin", c.x(0)))))
rule("Tan", lambda c, g: c.op("Mul", g, _plus(c, _square(c, c.y), 1.0)))
rule("Asin", _asin)
rule("Acos", lambda c, g: c.op("Neg", _asin(c, g)))
rule("Atan", lambda c, g: c.op("Div", g, _plus(c, _square(c, c.x(0)), 1.0)))

rule("Sinh", lambda c, g: c.op("Mul", g, c.op("Cosh", c.x(0))))
rule("Cosh", lambda c, g: c.op("Mul", g, c.op("Sinh", c.x(0))))
rule("Tanh", lambda c, g: c.op("Mul", g, c.op("Sub", c.like(1.0), _square(c, c.y))))
rule("Asinh", _asinh)
rule("Acosh", _acosh)
rule("Atanh", lambda c, g: c.op("Div", g, _one_minus_square(c, c.x(0))))
