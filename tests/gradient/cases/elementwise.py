"""Cases for arithmetic, choices, limits and copies, element by element."""

from __future__ import annotations

import numpy as np

from .values import away, case, distinct, i64, positive, rng, weight

ALL = (0, 1, 2, 3)
X = (2, 3, 4)

# --- one operand
for op, x in {
    "Identity": weight(*X),
    "Neg": weight(*X),
    "Abs": away(*X),
    "Reciprocal": positive(*X),
    "Dropout": weight(*X),
}.items():
    case(op, x)
    case(op, x[0, 0])
case("Cast", weight(*X), to=1, linear=True)
for op, x in {"Abs": away(*X), "Reciprocal": positive(*X)}.items():
    case(op, x, opset=13, dynamic=ALL)
    case(op, x[0, 0], opset=26)
case("Identity", weight(*X), opset=26, dynamic=ALL)
case("Cast", weight(*X), to=1, opset=26, dynamic=ALL)
case("CastLike", weight(*X), np.float32(0.0), opset=15)
case("CastLike", weight(*X), np.float32(0.0), opset=25, dynamic=ALL)
case("Dropout", weight(*X), np.float32(0.4), np.array(False))
case("Dropout", weight(*X), np.float32(0.0), np.array(True), opset=22)

# --- several operands, broadcast in every direction
PAIRS = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((4,), (2, 3, 4)), ((2, 1, 4), (3, 1))]
for op in ("Add", "Sub", "Mul", "Div"):
    for a, b in PAIRS:
        case(op, positive(*a), positive(*b), wrt=(0, 1), dynamic=None)
    case(op, positive(2, 3, 4, 5), positive(3, 1, 1))
case("Add", weight(1, 3), weight(2, 3), wrt=(0, 1), dynamic=(0,))
case("Pow", positive(2, 3), positive(2, 3), wrt=(0, 1), dynamic=(0,))
case("Pow", positive(2, 3, 2), np.array(3.0))
case("Pow", weight(2, 3), np.array(2.0))
case("Sum", weight(2, 3, 4), weight(3, 1), weight(4), wrt=(0, 1, 2), dynamic=None)
case("Sum", weight(2, 3), wrt=(0,))
case("Mean", weight(2, 3, 4), weight(3, 1), wrt=(0, 1), dynamic=None)
for op in ("Max", "Min"):
    D = distinct(3, 2, 3, 4)
    case(op, *D, wrt=(0, 1, 2), dynamic=(0, 2))
    case(op, D[0], D[1, :1, :, :1], wrt=(0, 1), dynamic=None)
CONDITION = rng.integers(0, 2, (2, 3, 4)).astype(bool)
case("Where", CONDITION, weight(2, 3, 4), weight(3, 1), wrt=(1, 2), dynamic=None)

# --- the same, scalars, operands that the run brings
PAIRS += [((), (2, 3)), ((2, 3), ())]
for op in ("Add", "Sub", "Mul", "Div"):
    for a, b in PAIRS:
        case(op, positive(*a), positive(*b), wrt=(0, 1), dynamic=ALL, opset=14)
for op in ("Sum", "Mean", "Max", "Min"):
    D = distinct(3, 2, 3, 4)
    case(op, D[0], D[1, :1, :, :1], D[2, 0], wrt=(0, 1, 2), dynamic=ALL)
    case(op, D[0], dynamic=ALL, opset=26)
DIVISOR = np.array([[2.3], [-1.7], [4.0]])
DIVIDEND = DIVISOR * (rng.integers(0, 4, (2, 3, 4)) + rng.uniform(0.2, 0.8, (2, 3, 4)))
case("Mod", DIVIDEND, DIVISOR, fmod=1, wrt=(0, 1), dynamic=ALL, opset=13)
case("Mod", -DIVIDEND, DIVISOR, fmod=1, wrt=(0, 1), opset=26)
CHOICE = rng.integers(0, 2, (2, 3, 4)).astype(bool)
case("Where", CHOICE, weight(2, 3, 4), weight(3, 1), wrt=(1, 2), fed=(0,), dynamic=ALL)
case("Where", CHOICE, weight(1), weight(4), wrt=(1, 2), dynamic=ALL)
case("Where", CHOICE[0, :, :1], weight(2, 1, 4), weight(), wrt=(1, 2), dynamic=ALL)

case("Pow", positive(2, 3), positive(3), wrt=(0, 1), dynamic=ALL)
case("Pow", weight(2, 3), i64(2, 3, 0), opset=15)
case("Pow", weight(2, 3), i64(2), dynamic=ALL)
case("Pow", weight(2, 3), np.array(3), opset=15)
case("Pow", positive(2, 3), np.array([0.5, -1.0, 0.0]))
case("Pow", weight(2, 3), np.float32([2.0, 3.0, 0.0]), fed=(1,))
case("Pow", np.array([[0.0, 1, 2], [0.5, 0, 0]]), np.array([2.0, 2.5, 3.0]), wrt=(1,))

# --- limits
case("Clip", away(*X, kinks=(-0.5, 1.0)), np.float32(-0.5), np.float32(1.0))
case("Clip", away(*X, kinks=(-0.5,)), np.float32(-0.5))
case("Clip", away(*X, kinks=(1.0,)), None, np.float32(1.0))
case("Clip", away(*X))
BOUNDED = away(2, 3, 4, kinks=(-0.5, 1.0))
case("Clip", BOUNDED, np.array(-0.5), np.array(1.0), wrt=(0, 1, 2), dynamic=ALL)
case("Clip", BOUNDED, np.array(1.0), np.array(-0.5), wrt=(0, 1, 2), dynamic=ALL)
case("Clip", BOUNDED, None, np.array(-0.5), wrt=(0, 2), opset=26)
case("Clip", BOUNDED, np.array(-0.5), wrt=(0, 1), dynamic=ALL)
case("Clip", BOUNDED, np.float32(-0.5), np.float32(1.0), fed=(1, 2))
