"""Cases for reductions."""

from __future__ import annotations

from .values import case, distinct, i64, weight

ALL = (0, 1, 2, 3)
REDUCTIONS = "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare"

for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"):
    for keep in (0, 1):
        if op == "ReduceSum":
            case(op, distinct(2, 3, 4), i64(1, -1), keepdims=keep)
        else:
            case(op, distinct(2, 3, 4), axes=[1, -1], keepdims=keep)
            case(op, distinct(2, 3, 4), i64(-1), keepdims=keep, opset=18)
    case(op, distinct(2, 3), keepdims=0)

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
