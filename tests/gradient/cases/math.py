"""Cases for elementwise operators: the oldest and newest opsets, operands that the run brings."""

from __future__ import annotations

import numpy as np

from .values import away, case, distinct, i64, positive, rng, weight

ALL = (0, 1, 2, 3)

# --- functions of one variable
X = (2, 3, 4)
for op, x in {
    "Abs": away(*X),
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
    "Reciprocal": positive(*X),
}.items():
    case(op, x, opset=13, dynamic=ALL)
    case(op, x[0, 0], opset=26)

# --- activations
for op, kinks in {
    "Relu": (0.0,),
    "Elu": (0.0,),
    "Selu": (0.0,),
    "Celu": (0.0,),
    "LeakyRelu": (0.0,),
    "ThresholdedRelu": (1.0,),
    "Sigmoid": (),
    "HardSigmoid": (-2.5, 2.5),
    "Softplus": (),
    "Softsign": (),
    "Shrink": (-0.5, 0.5),
}.items():
    case(op, away(*X, kinks=kinks), opset=13, dynamic=ALL)
    case(op, away(*X, kinks=kinks), opset=26)
case("LeakyRelu", away(3, 5), alpha=-0.2, opset=16)
case("ThresholdedRelu", away(3, 5, kinks=(0.3,)), alpha=0.3, opset=22)
case("Elu", away(3, 5), alpha=1.7, opset=22)
case("HardSwish", away(*X, kinks=(-3.0, 3.0), spread=2.5), opset=22)
case("Mish", weight(*X), opset=22)
case("Gelu", weight(*X), opset=26, approximate="tanh")
case("Shrink", away(*X, kinks=(-0.7, 0.7)), lambd=0.7, bias=0.3)
case("Swish", weight(*X), alpha=0.7, opset=24, dynamic=ALL)
case("Swish", weight(*X), opset=24)
case("PRelu", away(2, 3, 4), positive(3, 1), wrt=(0, 1), dynamic=ALL, opset=16)
case("PRelu", away(2, 3, 4), positive(1), wrt=(0, 1), dynamic=ALL)
case("PRelu", away(3), positive(), wrt=(0, 1), dynamic=ALL)

# --- passed on
case("Identity", weight(*X), opset=26, dynamic=ALL)
case("Cast", weight(*X), to=1, opset=26, dynamic=ALL)
case("CastLike", weight(*X), np.float32(0.0), opset=15)
case("CastLike", weight(*X), np.float32(0.0), opset=25, dynamic=ALL)
case("Dropout", weight(*X), np.float32(0.4), np.array(False))
case("Dropout", weight(*X), np.float32(0.0), np.array(True), opset=22)

# --- several operands
PAIRS = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((4,), (2, 3, 4)), ((2, 1, 4), (3, 1))]
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

BOUNDED = away(2, 3, 4, kinks=(-0.5, 1.0))
case("Clip", BOUNDED, np.array(-0.5), np.array(1.0), wrt=(0, 1, 2), dynamic=ALL)
case("Clip", BOUNDED, np.array(1.0), np.array(-0.5), wrt=(0, 1, 2), dynamic=ALL)
case("Clip", BOUNDED, None, np.array(-0.5), wrt=(0, 2), opset=26)
case("Clip", BOUNDED, np.array(-0.5), wrt=(0, 1), dynamic=ALL)
case("Clip", BOUNDED, np.float32(-0.5), np.float32(1.0), fed=(1, 2))
