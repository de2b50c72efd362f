"""Cases for operators that write updates into a tensor."""

from __future__ import annotations

import numpy as np

from .values import case, distinct, i64, rng, weight

BOTH = {"wrt": (0, 2)}

# --- without a reduction: every update has a place of its own
ROWS = np.array([[2, 0, -1], [1, 3, 0]])
POINTS = np.array([[[0, 1], [-1, 2]], [[1, 0], [0, 0]]])
for opset in (13, 16, 18, 26):
    case("ScatterElements", weight(2, 4), ROWS, weight(2, 3), axis=1, opset=opset, **BOTH)
    case("ScatterElements", weight(4, 5), ROWS.T, weight(3, 2), opset=opset, fed=(1,), **BOTH)
    case("ScatterElements", weight(2, 4), ROWS.astype(np.int32), weight(2, 3), axis=-1, **BOTH)
    case("ScatterND", weight(4, 3), np.array([[1], [-1]]), weight(2, 3), opset=opset, **BOTH)
    case("ScatterND", weight(2, 3, 4), POINTS, weight(2, 2, 4), opset=opset, fed=(1,), **BOTH)
    case("ScatterND", weight(2, 3), POINTS, weight(2, 2), opset=opset, **BOTH)

# --- with one: updates that meet at a place, data smaller and larger than them, a factor of 0
MEETING = rng.integers(-3, 3, (4, 2))
PAIRS = rng.integers(0, 2, (5, 2))
for how, opsets in {"add": (16, 18, 26), "mul": (16, 26), "max": (18, 26), "min": (18,)}.items():
    for opset in opsets:
        values = distinct(40)
        settings = {"reduction": how, "opset": opset, **BOTH}
        case(
            "ScatterElements",
            values[:9].reshape(3, 3),
            MEETING,
            values[9:17].reshape(4, 2),
            **settings,
        )
        x, u = values[:12].reshape(4, 3), values[12:20].reshape(4, 2) * (rng.random((4, 2)) > 0.3)
        case("ScatterElements", x, MEETING, u, axis=1, fed=(1,), **settings)
        case(
            "ScatterND",
            values[:8].reshape(2, 4),
            i64(1, 0, 1)[:, None],
            values[8:20].reshape(3, 4),
            **settings,
        )
        case(
            "ScatterND",
            values[:12].reshape(2, 2, 3),
            PAIRS,
            values[12:27].reshape(5, 3),
            fed=(1,),
            **settings,
        )

# --- caches
WRAPPED = {"mode": "circular", "opset": 24, "wrt": (0, 1)}
case("TensorScatter", weight(2, 3, 5, 2), weight(2, 3, 2, 2), opset=24, wrt=(0, 1))
case("TensorScatter", weight(2, 5, 3), weight(2, 2, 3), i64(1, 3), axis=1, opset=26, wrt=(0, 1))
case("TensorScatter", weight(2, 5, 3), weight(2, 3, 3), i64(4, 1), fed=(2,), **WRAPPED)
