"""Elementwise arithmetic and operators that pass a tensor on.

At a kink the gradient is that of the side where the function is flat: ``Clip`` passes where
``low < x < high``. Where several operands tie, the first takes all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.helpers.masks import compared, passed_inside, rectifier_bounds
from onnxcam.gradient.registry import rule
from onnxcam.gradient.terms import formula
from onnxcam.gradient.walker import unbroadcast
from onnxcam.graph.terms import Term, rounded, sign
from onnxcam.graph.values import constant, is_float

# --- the same tensor, passed on


def _same(c: Call, g: ir.Value) -> ir.Value:
    return g


def _cast(c: Call, g: ir.Value) -> ir.Value | None:
    """Between floating-point types the identity; a step function where the result is integer.

    The cotangent of quantized codes is itself floating point.
    """
    if not is_float(c.y):
        return None
    return c.op("Cast", g, to=c.x(0).dtype) if is_float(c.x(0)) else g


TRAINING = "it is in training mode"


def _dropout(c: Call, g: ir.Value) -> ir.Value:
    if c.operand(2) is not None and c.known(2, "training mode").any():
        ratio = constant(c.operand(1))
        if ratio is None or ratio.any():
            raise c.refuse(TRAINING)
    return g


rule("Identity", lambda c, g: g)
rule("Dropout", _dropout, None, None, refuses=[TRAINING, must_be_known("training mode")])
rule("Cast", _cast)
rule("CastLike", _cast, None)

# --- arithmetic; the walker undoes broadcasting

rule("Add", _same, _same, broadcasts=True)
rule("Sub", _same, formula(lambda g: -g), broadcasts=True)


def _one_minus(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Sub", c.like(1.0), value)


def factor(
    c: Call, g: ir.Value, index: int, one_minus: Callable[[Call, ir.Value], ir.Value] = _one_minus
) -> ir.Value | None:
    """For y = a b: da = g b; and where b is sigmoid a (SiLU), dy = b + y (1 - b) all at once."""
    other = c.x(1 - index)
    if _is_gate(c, c.x(index), other):
        return None  # counted with the other operand
    if not _is_gate(c, other, c.x(index)):
        return c.op("Mul", g, other)
    return c.op("Mul", g, c.op("Add", other, c.op("Mul", c.y, one_minus(c, other))))


def _is_gate(c: Call, value: ir.Value, of: ir.Value) -> bool:
    """Whether ``value`` is the sigmoid of ``of``, and only the derivative of both is asked for."""
    node = value.producer()
    if node is None or node.op_type != "Sigmoid" or value in c.walk.ends:
        return False
    return node.inputs[0] is of and not c.walk.overridden(node)


rule(
    "Mul",
    lambda c, g: factor(c, g, 0),
    lambda c, g: factor(c, g, 1),
    broadcasts=True,
)
rule(
    "Div",
    formula(lambda g, x1: g / x1),
    formula(lambda g, y, x1: -(g * y / x1)),
    broadcasts=True,
)
rule("Sum", variadic=lambda c, g, i: g, broadcasts=True)
rule(
    "Mean",
    variadic=lambda c, g, i: c.op("Div", g, c.like(len(c.node.inputs))),
    broadcasts=True,
)
rule("Neg", formula(lambda g: -g))
rule("Abs", formula(lambda g, x: g * sign(x)))
rule("Reciprocal", formula(lambda g, y: -(g * (y * y))))


def _modulus(g: Term, x: Term, y: Term, x1: Term) -> Term:
    """For y = a - b n with n a whole number that steps: db = -n g."""
    n = rounded((x - y) / x1)
    return -(g * n)


rule("Mod", _same, formula(_modulus), broadcasts=True)


def _pow_base(c: Call, g: ir.Value) -> ir.Value:
    """d(x^p) = p x^(p-1); a zero exponent gives 0, also at x = 0, and so does one below 1 there."""
    x, p = c.x(0), c.x(1)
    known = constant(p)
    if known is not None and known.size == 1 and known.item() == 2:
        return c.op("Mul", g, c.op("Mul", x, c.like(2.0)))
    if p.dtype != x.dtype:
        p = c.op("Cast", p, to=c.kind)
    slope = c.op("Mul", p, c.op("Pow", x, c.op("Sub", p, c.like(1.0))))
    if known is None or not known.all():
        slope = c.op("Where", c.op("Equal", p, c.like(0.0)), c.like(0.0), slope)
    if known is None or (known < 1).any():  # as for Sqrt
        flat = c.op("And", c.op("Equal", x, c.like(0.0)), c.op("Less", p, c.like(1.0)))
        slope = c.op("Where", flat, c.like(0.0), slope)
    return c.op("Mul", g, slope)


def _pow_exponent(c: Call, g: ir.Value) -> ir.Value:
    """d(x^p)/dp = x^p log x; 0 at x = 0, as in PyTorch, and below, where it is undefined."""
    x = c.x(0)
    base = c.op("Where", c.op("Greater", x, c.like(0.0)), x, c.like(1.0))
    slope = c.op("Mul", g, c.op("Mul", c.y, c.op("Log", base)))
    p = c.x(1)
    return slope if p.dtype in (x.dtype, None) else c.op("Cast", slope, to=p.dtype)


rule("Pow", _pow_base, _pow_exponent, broadcasts=True)

# --- choices


def _extreme(c: Call, g: ir.Value, index: int) -> ir.Value:
    """Max and Min: the first operand that attains the extreme takes all of it."""
    taken = c.op("Equal", c.x(index), c.y)
    for earlier in range(index):
        taken = c.op("And", taken, c.op("Not", c.op("Equal", c.x(earlier), c.y)))
    return c.mask(taken, g)


rule("Max", variadic=_extreme, broadcasts=True)
rule("Min", variadic=_extreme, broadcasts=True)
rule(
    "Where",
    None,
    lambda c, g: c.mask(c.x(0), g),
    lambda c, g: c.mask(c.op("Not", c.x(0)), g),
    broadcasts=True,
)


def _clip(c: Call, g: ir.Value) -> ir.Value:
    """For y = min(max(x, low), high): dx = g where low < x < high, which is where y does."""
    bounds = rectifier_bounds(c.node)
    if bounds is not None:
        return passed_inside(c, g, *bounds)
    return compared(c, g, c.operand(1), c.operand(2))


def _clip_low(c: Call, g: ir.Value) -> ir.Value:
    """The lower bound takes what lies below it, unless it is above the upper one."""
    taken = c.op("LessOrEqual", c.x(0), c.x(1))
    high = c.operand(2)
    if high is not None:
        taken = c.op("And", taken, c.op("Less", c.x(1), high))
    return unbroadcast(c, c.mask(taken, g), c.x(1))


def _clip_high(c: Call, g: ir.Value) -> ir.Value:
    """The upper bound takes what lies above it, everything where the lower one is above it."""
    taken = c.op("GreaterOrEqual", c.x(0), c.x(2))
    low = c.operand(1)
    if low is not None:
        taken = c.op("Or", taken, c.op("GreaterOrEqual", low, c.x(2)))
    return unbroadcast(c, c.mask(taken, g), c.x(2))


rule("Clip", _clip, _clip_low, _clip_high)
