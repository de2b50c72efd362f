"""Cases for reductions, running products and softmax."""

from __future__ import annotations

import numpy as np

from .values import case, distinct, i64, weight

ALL = (0, 1, 2, 3)
REDUCTIONS = "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare"

for name in REDUCTIONS.split():
    op = f"Reduce{name}"
    x = distinct(2, 3, 4) + (1.5 if name == "LogSum" else 0.013)
    for keep in (0, 1):
        if name == "Sum":
            case(op, x, i64(1, -1), keepdims=keep, opset=13, dynamic=ALL)
        else:
            case(op, x, axes=[1, -1], keepdims=keep, opset=13, dynamic=ALL)
        case(op, x, i64(0), keepdims=keep, opset=26, dynamic=ALL)
        for axes in (i64(1, -1), i64(-3), i64()):  # only the run knows them
            case(op, x, axes, keepdims=keep, opset=18, fed=(1,), dynamic=ALL)
        case(op, x, i64(), keepdims=keep, opset=20, noop_with_empty_axes=1, fed=(1,), dynamic=ALL)
        case(op, x, i64(), keepdims=keep, opset=18, noop_with_empty_axes=1)
        case(op, x, i64(), keepdims=keep, opset=18)
    case(op, x, opset=26, dynamic=ALL)
    case(op, x, opset=18, noop_with_empty_axes=1)
    case(op, x[0, 0], opset=17)

ZEROS = weight(3, 5, 3)
ZEROS[0, 1, 2] = ZEROS[1, 0, 0] = ZEROS[1, 3, 0] = 0
case("ReduceProd", ZEROS, i64(1), opset=18, keepdims=0, dynamic=ALL)
case("ReduceProd", ZEROS, axes=[1, 2])


def cum_prod(x: np.ndarray, axis: np.ndarray, reverse: int = 0, exclusive: int = 0) -> np.ndarray:
    x = np.moveaxis(x, int(axis), 0)[:: -1 if reverse else 1]
    y = np.cumprod(x, axis=0)
    if exclusive:
        y = np.concatenate([np.ones_like(y[:1]), y[:-1]])
    return np.moveaxis(y[:: -1 if reverse else 1], 0, int(axis))


for reverse in (0, 1):
    for exclusive in (0, 1):
        for axis in (1, -1):
            case(
                "CumProd",
                ZEROS,
                np.array(axis),
                reverse=reverse,
                exclusive=exclusive,
                opset=26,
                dynamic=ALL,
                obvious=cum_prod,
            )

for op in ("Softmax", "LogSoftmax"):
    case(op, weight(2, 3, 4), axis=-2, opset=13, dynamic=ALL)
    case(op, weight(2, 3, 4), axis=0, opset=26, dynamic=ALL)
    case(op, weight(5), axis=0)
