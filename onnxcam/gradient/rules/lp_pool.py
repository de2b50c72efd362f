"""Pooling by a norm."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.pool_windows import REFUSES, pool_windows, spread_windows
from onnxcam.gradient.registry import rule


def _share(c: Call, g: ir.Value, power: int) -> ir.Value:
    """Return ``g / y^(p-1)``; where y is 0 every x is 0, so that any finite value will do."""
    if power == 1:
        return g
    divisor = c.op("Where", c.op("Greater", c.y, c.like(0.0)), c.y, c.like(1.0))
    return c.op("Div", g, _raised(c, divisor, power - 1))


def _raised(c: Call, value: ir.Value, power: int) -> ir.Value:
    return value if power == 1 else c.op("Pow", value, c.like(float(power)))


def _slope(c: Call, power: int) -> ir.Value:
    """Return ``sign(x) |x|^(p-1)``."""
    x = c.x(0)
    if power == 2:
        return x
    sign = c.op("Sign", x)
    return sign if power == 1 else c.op("Mul", sign, _raised(c, c.op("Abs", x), power - 1))


def _lp_pool(c: Call, g: ir.Value) -> ir.Value:
    """For y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p-1) sum(g / y^(p-1)).

    The sum is over the windows that read x.
    """
    power = int(c.attribute("p", 2))
    return c.op("Mul", spread_windows(c, _share(c, g, power), pool_windows(c)), _slope(c, power))


def _global_lp_pool(c: Call, g: ir.Value) -> ir.Value:
    """For y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p-1) g / y^(p-1)."""
    power = int(c.attribute("p", 2))
    return c.op("Mul", _share(c, g, power), _slope(c, power))


rule("LpPool", _lp_pool, refuses=REFUSES)
rule("GlobalLpPool", _global_lp_pool)
