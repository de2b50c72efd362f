"""Cases for functions of one variable."""

from __future__ import annotations

from .values import case, positive, rng, weight

ALL = (0, 1, 2, 3)
X = (2, 3, 4)

for op, x in {
    "Exp": weight(*X),
    "Log": positive(*X),
    "Sqrt": positive(*X),
    "Sin": weight(*X),
    "Cos": weight(*X),
    "Erf": weight(*X),
    "Tanh": weight(*X),
}.items():
    case(op, x)
    case(op, x[0, 0])

# --- the oldest and newest opsets
for op, x in {
    "Exp": weight(*X),
    "Log": positive(*X),
    "Sqrt": positive(*X),
    "Erf": weight(*X),
    "Sin": weight(*X),
    "Cos": weight(*X),
    "Tan": rng.uniform(-1.2, 1.2, X),
    "Asin": rng.uniform(-0.9, 0.9, X),
    "Acos": rng.uniform(-0.9, 0.9, X),
    "Atan": weight(*X),
    "Sinh": weight(*X),
    "Cosh": weight(*X),
    "Tanh": weight(*X),
    "Asinh": weight(*X),
    "Acosh": positive(*X) + 1.0,
    "Atanh": rng.uniform(-0.9, 0.9, X),
}.items():
    case(op, x, opset=13, dynamic=ALL)
    case(op, x[0, 0], opset=26)
