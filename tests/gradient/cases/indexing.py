"""Cases for operators that read elements by their index."""

from __future__ import annotations

import numpy as np

from .values import case, i64, rng, weight

I32 = np.int32

case("Gather", weight(3, 5), np.array(2), axis=1)
case("Gather", weight(3, 5, 2), i64(1, 1, 4), axis=1)
case("Gather", weight(5, 2), np.array([[0, 3], [3, 1]]), axis=0)
case("Gather", weight(3, 5), i64(-1, 0), axis=-1)

# --- Gather: one place, a piece, some or all places, repeated ones; short and long axes
for indices in (
    np.array(2),
    np.array(-1),
    i64(3),
    i64(1, 2, 3),
    i64(-2, -1),
    i64(4, 0, 2),
    i64(-1, 0, 1),
    i64(3, 1, -1, 0, 2),
    i64(1, 1, -4, 4),
    np.array([[0, 3], [3, -1]]),
    np.array([[0, 1], [2, 3]]),
    np.array([], np.int64),
):
    for axis in (0, -1, 1):
        x = weight(*{0: (5, 2), -1: (2, 3, 5), 1: (2, 5, 3)}[axis])
        case("Gather", x, indices, axis=axis, dynamic=(0, 1, 2))
        if indices.size:
            case("Gather", x, indices.astype(I32), axis=axis, dynamic=(1,), fed=(1,), opset=13)
        case("Gather", x, indices, axis=axis, dynamic=(0, 1, 2), fed=(1,), opset=16)
case("Gather", weight(700, 2), i64(3, 699, 3, -1), dynamic=(1,), opset=16)
case("Gather", weight(2, 700), i64(3, 699, 3, -1), axis=1, dynamic=(0,), opset=18, fed=(1,))
case("Gather", weight(700, 2), i64(-3, -2), dynamic=(0,))

for opset in (16, 18, 26):
    indices = rng.integers(-3, 3, (2, 4))
    case("GatherElements", weight(3, 4), indices, axis=0, opset=opset, fed=(1,))
    case(
        "GatherElements",
        weight(2, 3, 4),
        rng.integers(0, 4, (2, 2, 7)),
        axis=-1,
        opset=opset,
        linear=True,
    )
    case(
        "GatherElements",
        weight(2, 3, 4),
        rng.integers(0, 3, (1, 5, 2)).astype(I32),
        axis=1,
        linear=True,
    )
    case("GatherND", weight(3, 4, 2), np.array([[0, -1], [2, 2], [0, 3]]), opset=opset, fed=(1,))
    case("GatherND", weight(3, 4, 2), np.array([[[0], [2]], [[2], [-1]]]), opset=opset)
    case("GatherND", weight(2, 3, 4), np.array([[1], [0]]), opset=opset, batch_dims=1)
    case("GatherND", weight(2, 3, 4, 2), rng.integers(0, 2, (2, 3, 5, 2)), batch_dims=2)
case("GatherND", weight(3), np.array([[1], [1], [2]]), opset=16)

for axis in (None, 0, 1, -1):
    chosen = np.array([True, False, True, True][: 3 if axis == 1 else 4])
    settings = {} if axis is None else {"axis": axis}
    case("Compress", weight(4, 3, 4), chosen, **settings)
    case("Compress", weight(4, 3, 4), chosen[:2], **settings, opset=13, fed=(1,))

# --- nothing is read
case("Compress", weight(4, 3), np.zeros(4, bool), axis=0, fed=(1,))
case("GatherND", weight(4, 3), np.zeros((0, 1), np.int64), fed=(1,))
case("GatherElements", weight(4, 3), np.zeros((0, 3), np.int64), fed=(1,), linear=True)
