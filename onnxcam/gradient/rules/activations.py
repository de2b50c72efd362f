"""Activations and softmax.

At a kink the gradient is that of the side where the function is flat: ``Relu`` passes where
``x > 0``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.masks import passed_inside
from onnxcam.gradient.registry import rule


def _one_minus(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Sub", c.like(1.0), value)


def _positive(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Greater", value, c.like(0.0))


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
    alpha = c.attribute("alpha", 0.01)
    below = c.op("Mul", g, c.like(alpha))
    # Where alpha is not negative, y tells the sign of x.
    return c.op("Where", _positive(c, c.y if alpha >= 0 else c.x(0)), g, below)


def _prelu(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Where", _positive(c, c.x(0)), g, c.op("Mul", g, c.x(1)))


def _sigmoid(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", g, c.op("Mul", c.y, _one_minus(c, c.y)))


def _hard_sigmoid(c: Call, g: ir.Value) -> ir.Value:
    alpha, beta = c.attribute("alpha", 0.2), c.attribute("beta", 0.5)
    line = c.op("Add", c.op("Mul", c.x(0), c.like(alpha)), c.like(beta))
    bent = c.op("And", c.op("Greater", line, c.like(0.0)), c.op("Less", line, c.like(1.0)))
    return c.mask(bent, c.op("Mul", g, c.like(alpha)))


def _hard_swish(c: Call, g: ir.Value) -> ir.Value:
    """For y = x h, h = clip(x / 6 + 1 / 2, 0, 1): dy = x / 3 + 1 / 2 between -3 and 3, else h."""
    x = c.x(0)
    line = c.op("Add", c.op("Mul", x, c.like(1.0 / 3.0)), c.like(0.5))
    flat = c.op("Cast", _positive(c, x), to=c.kind)
    bent = c.op("Less", c.op("Abs", x), c.like(3.0))
    return c.op("Mul", g, c.op("Where", bent, line, flat))


def _softplus(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", g, c.op("Sigmoid", c.x(0)))


def _softsign(c: Call, g: ir.Value) -> ir.Value:
    wide = c.op("Add", c.op("Abs", c.x(0)), c.like(1.0))
    return c.op("Div", g, c.op("Mul", wide, wide))


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


def _shrink(c: Call, g: ir.Value) -> ir.Value:
    """The line is cut out between -lambd and lambd."""
    edge = float(c.attribute("lambd", 0.5))
    below, above = c.op("Less", c.x(0), c.like(-edge)), c.op("Greater", c.x(0), c.like(edge))
    return c.mask(c.op("Or", below, above), g)


def _swish(c: Call, g: ir.Value) -> ir.Value:
    """For y = x s with s = sigmoid(alpha x): dy = s + alpha y (1 - s)."""
    alpha = c.like(c.attribute("alpha", 1.0))
    gate = c.op("Sigmoid", c.op("Mul", c.x(0), alpha))
    through = c.op("Mul", c.op("Mul", c.y, alpha), _one_minus(c, gate))
    return c.op("Mul", g, c.op("Add", gate, through))


rule("Relu", lambda c, g: passed_inside(c, g, 0.0, None))
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
rule("Mish", _mish)
rule("Gelu", _gelu)
rule("ThresholdedRelu", _thresholded_relu)
rule("Shrink", _shrink)
rule("Swish", _swish)

# --- softmax


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield what reads a value, and at which operand, past conversions."""
    for use in value.uses():
        yield use.node, use.idx
        if use.node.op_type in ("Cast", "CastLike", "Identity") and use.idx == 0:
            yield from _readers(use.node.outputs[0])


def _selected(c: Call) -> ir.Value:
    """Return y, and 0 in place of NaN where the model selects from it.

    Attention that is masked altogether makes NaN, which models replace. The cotangent of what
    they replace is 0, and 0 NaN would be NaN.
    """
    guards = (n.op_type == "IsNaN" or (n.op_type == "Where" and i) for n, i in _readers(c.y))
    return c.op("Where", c.op("IsNaN", c.y), c.like(0.0), c.y) if any(guards) else c.y


def _softmax(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = y (g - sum(g y))."""
    axis, y = c.axis(c.x(0), -1), _selected(c)
    inner = c.builder.sum(c.op("Mul", g, y), [axis], keepdims=True)
    return c.op("Mul", y, c.op("Sub", g, inner))


def _log_softmax(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = g - softmax(x) sum(g)."""
    axis = c.axis(c.x(0), -1)
    total = c.builder.sum(g, [axis], keepdims=True)
    return c.op("Sub", g, c.op("Mul", c.op("Exp", c.y), total))


rule("Softmax", _softmax)
rule("LogSoftmax", _log_softmax)
