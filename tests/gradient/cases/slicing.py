"""Cases for slices."""

from __future__ import annotations

import numpy as np

from .values import case, i64, weight

X = (4, 7)
I32 = np.int32

case("Slice", weight(4, 5), i64(1), i64(3), i64(1))
case("Slice", weight(4, 6), i64(0, 1), i64(9, -1), i64(0, 1), i64(2, 2), dynamic=None)
case("Slice", weight(4, 6), i64(-1), i64(-100), i64(1), i64(-2), dynamic=(0,))
case("Slice", weight(4, 6), i64(1, 2), i64(4, 5), dynamic=None)

# --- every kind of bound, once stored and once known to the run alone
for start, end, step in (
    (1, 3, 1),
    (-3, -1, 1),
    (-100, 100, 1),
    (5, 2, 1),
    (100, 200, 1),
    (0, 100, 2),
    (1, 100, 3),
    (1, -1, 2),
    (3, 1, 2),
    (-1, -100, -1),
    (-2, 1, -2),
    (100, -100, -3),
    (-100, 3, -1),
    (1, 3, -1),
):
    bounds = (i64(start), i64(end), i64(1), i64(step))
    case("Slice", weight(*X), *bounds, dynamic=(0, 1))
    case("Slice", weight(*X), *bounds, dynamic=(0, 1), fed=(1, 2), opset=13)
    case("Slice", weight(*X), *bounds, dynamic=(1,), fed=(1, 2, 3, 4))
case("Slice", weight(4, 6, 5), i64(1, 0, -1), i64(9, 9, -9), i64(0, 2, 1), i64(2, 1, -2))
case("Slice", weight(4, 6, 5), i64(1, 0), i64(4, 5), dynamic=(0, 1, 2))
case("Slice", weight(4, 6, 5), i64(1, 0), i64(4, 5), None, i64(2, 3), fed=(1, 2), dynamic=(0, 1))
case(
    "Slice",
    weight(4, 6),
    np.array([-3], I32),
    np.array([6], I32),
    np.array([-1], I32),
    np.array([2], I32),
    fed=(1, 2),
)
