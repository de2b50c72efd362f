"""Functions of one variable: the cotangent times the derivative."""

from __future__ import annotations

import math

from onnxcam.gradient.registry import rule
from onnxcam.gradient.terms import formula
from onnxcam.graph.terms import Term, cos, cosh, exp, sin, sinh, sqrt, where


def _one_minus_square(v: Term) -> Term:
    """Return 1 - v^2 as (1 - v) (1 + v), which is exact near 1."""
    return (1.0 - v) * (v + 1.0)


rule("Exp", formula(lambda g, y: g * y))
rule("Log", formula(lambda g, x: g / x))
# At 0 the slope is infinite, and infinity times a zero that comes after would be NaN; 0 is taken
# there, which is a subgradient of |x| = sqrt(x^2) too.
rule("Sqrt", formula(lambda g, y: where(y > 0.0, g / (y * 2.0), 0.0)))
rule("Erf", formula(lambda g, x: g * (exp(-(x * x)) * (2.0 / math.sqrt(math.pi)))))

rule("Sin", formula(lambda g, x: g * cos(x)))
rule("Cos", formula(lambda g, x: -(g * sin(x))))
rule("Tan", formula(lambda g, y: g * (y * y + 1.0)))
rule("Asin", formula(lambda g, x: g / sqrt(_one_minus_square(x))))
rule("Acos", formula(lambda g, x: -(g / sqrt(_one_minus_square(x)))))
rule("Atan", formula(lambda g, x: g / (x * x + 1.0)))

rule("Sinh", formula(lambda g, x: g * cosh(x)))
rule("Cosh", formula(lambda g, x: g * sinh(x)))
rule("Tanh", formula(lambda g, y: g * (1.0 - y * y)))
rule("Asinh", formula(lambda g, x: g / sqrt(x * x + 1.0)))
# sqrt(x^2 - 1), split in two so that it is exact near 1
rule("Acosh", formula(lambda g, x: g / (sqrt(x - 1.0) * sqrt(x + 1.0))))
rule("Atanh", formula(lambda g, x: g / _one_minus_square(x)))
