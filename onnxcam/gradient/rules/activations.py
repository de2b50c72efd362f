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
from onnxcam.gradient.terms import formula, indicator, passed
from onnxcam.graph.terms import Term, erf, exp, sigmoid, softplus, tanh, where


def _elu(g: Term, x: Term, y: Term, alpha: float = 1.0) -> Term:
    """For y = alpha (exp x - 1) below 0: dy = y + alpha there."""
    below = g * (y + alpha)
    return where(x > 0.0, g, below)


def _selu(
    g: Term,
    x: Term,
    y: Term,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
) -> Term:
    """For y = gamma x above 0, gamma alpha (exp x - 1) below: dy = gamma, or y + gamma alpha."""
    below = g * (y + alpha * gamma)
    return where(x > 0.0, g * gamma, below)


def _celu(g: Term, x: Term, alpha: float = 1.0) -> Term:
    """For y = alpha (exp(x / alpha) - 1) below 0: dy = exp(x / alpha) there."""
    scaled = x / alpha
    return where(x > 0.0, g, g * exp(scaled))


def _leaky_relu(g: Term, x: Term, y: Term, alpha: float = 0.01) -> Term:
    below = g * alpha
    # Where alpha is not negative, y tells the sign of x.
    return where((y if alpha >= 0 else x) > 0.0, g, below)


def _hard_sigmoid(g: Term, x: Term, alpha: float = 0.2, beta: float = 0.5) -> Term:
    """For y = clip(alpha x + beta, 0, 1): dy = alpha between the bounds."""
    line = x * alpha + beta
    return passed(g * alpha, (line > 0.0) & (line < 1.0))


def _hard_swish(g: Term, x: Term) -> Term:
    """For y = x h, h = clip(x / 6 + 1 / 2, 0, 1): dy = x / 3 + 1 / 2 between -3 and 3, else h."""
    line = x * (1.0 / 3.0) + 0.5
    flat = indicator(x > 0.0)
    return g * where(abs(x) < 3.0, line, flat)


def _softsign(g: Term, x: Term) -> Term:
    """For y = x / (1 + |x|): dy = 1 / (1 + |x|)^2."""
    wide = abs(x) + 1.0
    return g / (wide * wide)


def _mish(g: Term, x: Term) -> Term:
    """For y = x t with t = tanh(softplus x): dy = t + x (1 - t^2) sigmoid x."""
    t = tanh(softplus(x))
    return g * (t + x * ((1.0 - t * t) * sigmoid(x)))


def _gelu(g: Term, x: Term, approximate: str = "none") -> Term:
    """For y = x F(x), F the normal distribution function or its tanh approximation."""
    if approximate == "tanh":
        root, cubic = math.sqrt(2.0 / math.pi), 0.044715
        square = x * x
        t = tanh(x * (square * (root * cubic) + root))
        slope = square * (3 * root * cubic) + root
        bell = (1.0 - t * t) * (slope * 0.5)
        gate = (t + 1.0) * 0.5
    else:
        gate = (erf(x * math.sqrt(0.5)) + 1.0) * 0.5
        bell = exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    return g * (gate + x * bell)


def _shrink(g: Term, x: Term, lambd: float = 0.5) -> Term:
    """The line is cut out between -lambd and lambd."""
    return passed(g, (x < -lambd) | (x > lambd))


def _swish(g: Term, x: Term, y: Term, alpha: float = 1.0) -> Term:
    """For y = x s with s = sigmoid(alpha x): dy = s + alpha y (1 - s)."""
    s = sigmoid(x * alpha)
    return g * (s + y * alpha * (1.0 - s))


rule("Relu", lambda c, g: passed_inside(c, g, 0.0, None))
rule("Elu", formula(_elu))
rule("Selu", formula(_selu))
rule("Celu", formula(_celu))
rule("LeakyRelu", formula(_leaky_relu))
rule(
    "PRelu",
    formula(lambda g, x, x1: where(x > 0.0, g, g * x1)),
    formula(lambda g, x: where(x > 0.0, 0.0, g * x)),
    broadcasts=True,
)
rule("Sigmoid", formula(lambda g, y: g * (y * (1.0 - y))))
rule("HardSigmoid", formula(_hard_sigmoid))
rule("HardSwish", formula(_hard_swish))
rule("Softplus", formula(lambda g, x: g * sigmoid(x)))
rule("Softsign", formula(_softsign))
rule("Mish", formula(_mish))
rule("Gelu", formula(_gelu))
rule("ThresholdedRelu", formula(lambda g, x, alpha=1.0: passed(g, x > alpha)))
rule("Shrink", formula(_shrink))
rule("Swish", formula(_swish))

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
