"""Elementwise operators and activations.

At a kink the gradient is that of the side where the function is flat: ``Relu`` passes where
``x > 0``, ``Clip`` where ``low < x < high``.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule

# --- the same tensor, passed on


def _same(c: Call, g: ir.Value) -> ir.Value:
    return g


def _cast(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Cast", g, to=c.x(0).dtype or ir.DataType.FLOAT)


def _dropout(c: Call, g: ir.Value) -> ir.Value:
    if c.operand(2) is not None and c.known(2, "training mode").any():
        raise c.refuse("it is in training mode")
    return g


rule("Identity", _same)
rule("Dropout", _dropout, None, None)
rule("Cast", _cast)

# --- arithmetic; the walker undoes broadcasting

rule("Add", _same, _same, broadcasts=True)
rule("Sub", _same, lambda c, g: c.op("Neg", g), broadcasts=True)
rule(
    "Mul",
    lambda c, g: c.op("Mul", g, c.x(1)),
    lambda c, g: c.op("Mul", g, c.x(0)),
    broadcasts=True,
)
rule(
    "Div",
    lambda c, g: c.op("Div", g, c.x(1)),
    lambda c, g: c.op("Neg", c.op("Div", c.op("Mul", g, c.y), c.x(1))),
    broadcasts=True,
)
rule("Sum", variadic=lambda c, g, i: g, broadcasts=True)
rule(
    "Mean",
    variadic=lambda c, g, i: c.op("Div", g, c.like(len(c.node.inputs))),
    broadcasts=True,
)
rule("Neg", lambda c, g: c.op("Neg", g))
rule("Abs", lambda c, g: c.op("Mul", g, c.op("Sign", c.x(0))))
rule("Reciprocal", lambda c, g: c.op("Neg", c.op("Mul", g, c.op("Mul", c.y, c.y))))


def _pow_base(c: Call, g: ir.Value) -> ir.Value:
    """d(x^p) = p x^(p-1); a zero exponent gives 0, also at x = 0."""
    p = c.x(1)
    if p.dtype != c.x(0).dtype:
        p = c.op("Cast", p, to=c.x(0).dtype or ir.DataType.FLOAT)
    slope = c.op("Mul", p, c.op("Pow", c.x(0), c.op("Sub", p, c.like(1.0))))
    flat = c.op("Equal", p, c.like(0.0))
    return c.op("Mul", g, c.op("Where", flat, c.like(0.0), slope))


rule(
    "Pow",
    _pow_base,
    lambda c, g: c.op("Mul", g, c.op("Mul", c.y, c.op("Log", c.x(0)))),
    broadcasts=True,
)


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
    lambda c, g: c.op("Where", c.x(0), c.like(0.0), g),
    broadcasts=True,
)

# --- functions of one variable

rule("Exp", lambda c, g: c.op("Mul", g, c.y))
rule("Log", lambda c, g: c.op("Div", g, c.x(0)))
rule("Sqrt", lambda c, g: c.op("Div", g, c.op("Mul", c.y, c.like(2.0))))
rule("Sin", lambda c, g: c.op("Mul", g, c.op("Cos", c.x(0))))
rule("Cos", lambda c, g: c.op("Neg", c.op("Mul", g, c.op("Sin", c.x(0)))))


def _erf(c: Call, g: ir.Value) -> ir.Value:
    x = c.x(0)
    bell = c.op("Exp", c.op("Neg", c.op("Mul", x, x)))
    return c.op("Mul", g, c.op("Mul", bell, c.like(2.0 / math.sqrt(math.pi))))


rule("Erf", _erf)

# --- activations


def _one_minus(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Sub", c.like(1.0), value)


def _positive(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Greater", value, c.like(0.0))


def _clip(c: Call, g: ir.Value) -> ir.Value:
    inside = None
    for index, compare in ((1, "Greater"), (2, "Less")):
        bound = c.operand(index)
        if bound is not None:
            side = c.op(compare, c.x(0), bound)
            inside = side if inside is None else c.op("And", inside, side)
    return g if inside is None else c.mask(inside, g)


def _elu(c: Call, g: ir.Value) -> ir.Value:
    """For y = alpha (exp x - 1) below 0, so dy = y + alpha there."""
    below = c.op("Mul", g, c.op("Add", c.y, c.like(c.attribute("alpha", 1.0))))
    return c.op("Where", _positive(c, c.x(0)), g, below)


def _selu(c: Call, g: ir.Value) -> ir.Value:
    alpha = c.attribute("alpha", 1.67326319217681884765625)
    gamma = c.attribute("gamma", 1.05070102214813232421875)
    below = c.op("Mul", g, c.op("Add", c.y, c.like(alpha * gamma)))
    return c.op("Where", _positive(c, c.x(0)), c.op("Mul", g, c.like(gamma)), below)


def _celu(c: Call, g: ir.Value) -> ir.Value:
    scaled = c.op("Div", c.x(0), c.like(c.attribute("alpha", 1.0)))
    return c.op("Where", _positive(c, c.x(0)), g, c.op("Mul", g, c.op("Exp", scaled)))


def _leaky_relu(c: Call, g: ir.Value) -> ir.Value:
    below = c.op("Mul", g, c.like(c.attribute("alpha", 0.01)))
    return c.op("Where", _positive(c, c.x(0)), g, below)


def _prelu(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Where", _positive(c, c.x(0)), g, c.op("Mul", g, c.x(1)))


def _sigmoid(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", g, c.op("Mul", c.y, _one_minus(c, c.y)))


def _hard_sigmoid_slope(c: Call, alpha: float, beta: float, g: ir.Value) -> ir.Value:
    line = c.op("Add", c.op("Mul", c.x(0), c.like(alpha)), c.like(beta))
    inside = c.op("And", c.op("Greater", line, c.like(0.0)), c.op("Less", line, c.like(1.0)))
    return c.mask(inside, c.op("Mul", g, c.like(alpha)))


def _hard_sigmoid(c: Call, g: ir.Value) -> ir.Value:
    return _hard_sigmoid_slope(c, c.attribute("alpha", 0.2), c.attribute("beta", 0.5), g)


def _hard_swish(c: Call, g: ir.Value) -> ir.Value:
    """For y = x h(x) with h the hard sigmoid of slope 1/6: dy = h + x h'."""
    gate = c.op("HardSigmoid", c.x(0), alpha=1.0 / 6.0, beta=0.5)
    slope = _hard_sigmoid_slope(c, 1.0 / 6.0, 0.5, c.op("Mul", g, c.x(0)))
    return c.op("Add", c.op("Mul", g, gate), slope)


def _softplus(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", g, c.op("Sigmoid", c.x(0)))


def _softsign(c: Call, g: ir.Value) -> ir.Value:
    wide = c.op("Add", c.op("Abs", c.x(0)), c.like(1.0))
    return c.op("Div", g, c.op("Mul", wide, wide))


def _tanh(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", g, _one_minus(c, c.op("Mul", c.y, c.y)))


def _mish(c: Call, g: ir.Value) -> ir.Value:
    """For y = x t with t = tanh(softplus x): dy = t + x (1 - t^2) sigmoid x."""
    t = c.op("Tanh", c.op("Softplus", c.x(0)))
    inner = c.op("Mul", _one_minus(c, c.op("Mul", t, t)), c.op("Sigmoid", c.x(0)))
    return c.op("Mul", g, c.op("Add", t, c.op("Mul", c.x(0), inner)))


def _gelu(c: Call, g: ir.Value) -> ir.Value:
    """For y = x F(x), F the normal distribution function or its tanh approximation."""
    x = c.x(0)
    if c.attribute("approximate", "none") == "tanh":
        root, cubic = math.sqrt(2.0 / math.pi), 0.044715
        square = c.op("Mul", x, x)
        inner = c.op("Mul", x, c.op("Add", c.op("Mul", square, c.like(root * cubic)), c.like(root)))
        t = c.op("Tanh", inner)
        slope = c.op("Add", c.op("Mul", square, c.like(3 * root * cubic)), c.like(root))
        bell = c.op("Mul", _one_minus(c, c.op("Mul", t, t)), c.op("Mul", slope, c.like(0.5)))
        gate = c.op("Mul", c.op("Add", t, c.like(1.0)), c.like(0.5))
    else:
        erf = c.op("Erf", c.op("Mul", x, c.like(math.sqrt(0.5))))
        gate = c.op("Mul", c.op("Add", erf, c.like(1.0)), c.like(0.5))
        power = c.op("Exp", c.op("Mul", c.op("Mul", x, x), c.like(-0.5)))
        bell = c.op("Mul", power, c.like(1.0 / math.sqrt(2.0 * math.pi)))
    return c.op("Mul", g, c.op("Add", gate, c.op("Mul", x, bell)))


def _thresholded_relu(c: Call, g: ir.Value) -> ir.Value:
    return c.mask(c.op("Greater", c.x(0), c.like(c.attribute("alpha", 1.0))), g)


rule("Relu", lambda c, g: c.mask(_positive(c, c.y), g))
rule("Clip", _clip, None, None)
rule("Elu", _elu)
rule("Selu", _selu)
rule("Celu", _celu)
rule("LeakyRelu", _leaky_relu)
rule(
    "PRelu",
    _prelu,
    lambda c, g: c.op("Where", _positive(c, c.x(0)), c.like(0.0), c.op("Mul", g, c.x(0))),
    broadcasts=True,
)
rule("Sigmoid", _sigmoid)
rule("HardSigmoid", _hard_sigmoid)
rule("HardSwish", _hard_swish)
rule("Softplus", _softplus)
rule("Softsign", _softsign)
rule("Tanh", _tanh)
rule("Mish", _mish)
rule("Gelu", _gelu)
rule("ThresholdedRelu", _thresholded_relu)
