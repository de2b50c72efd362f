"""Cases for activations and softmax."""

from __future__ import annotations

from .values import away, case, positive, weight

ALL = (0, 1, 2, 3)
X = (2, 3, 4)

for op, x in {
    "Relu": away(*X),
    "Sigmoid": weight(*X),
    "Softplus": weight(*X),
    "Softsign": weight(*X),
    "HardSigmoid": away(*X, kinks=(-2.5, 2.5)),
    "HardSwish": away(*X, kinks=(-3.0, 3.0), spread=2.5),
    "Elu": away(*X),
    "Selu": away(*X),
    "Celu": away(*X),
    "LeakyRelu": away(*X),
    "ThresholdedRelu": away(*X, kinks=(1.0,)),
}.items():
    case(op, x)
    case(op, x[0, 0])
case("Elu", away(3, 5), alpha=0.4)
case("Selu", away(3, 5), alpha=1.2, gamma=0.7)
case("Celu", away(3, 5), alpha=0.6)
case("LeakyRelu", away(3, 5), alpha=0.3)
case("HardSigmoid", away(3, 5, kinks=(-1.5, 0.5)), alpha=0.5, beta=0.75)
case("Mish", weight(*X), opset=18)
case("Gelu", weight(*X), opset=20)
case("Gelu", weight(*X), opset=20, approximate="tanh")
case("PRelu", away(2, 3, 4), positive(3, 1), wrt=(0, 1))
case("PRelu", away(2, 3, 4), positive(1), wrt=(0, 1), dynamic=None)

# --- the oldest and newest opsets
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

# --- along an axis
for op in ("Softmax", "LogSoftmax"):
    case(op, weight(2, 5))
    case(op, weight(2, 3, 4), axis=1)
    case(op, weight(2, 3, 4), axis=0)
    case(op, weight(2, 3, 4), axis=-2, opset=13, dynamic=ALL)
    case(op, weight(2, 3, 4), axis=0, opset=26, dynamic=ALL)
    case(op, weight(5), axis=0)
