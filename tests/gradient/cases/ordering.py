"""Cases for operators that order, choose or accumulate along an axis."""

from __future__ import annotations

import numpy as np

from .values import case, distinct, i64, rng, weight

X = (2, 4, 3)

for opset in (11, 17, 24):
    for axis in (0, 1, -1):
        for largest in (0, 1):
            settings = {"axis": axis, "largest": largest, "unread": 1}
            case("TopK", distinct(*X), i64(2), **settings, opset=opset)
            case("TopK", distinct(*X), i64(1), **settings, opset=opset, fed=(1,))
case("TopK", distinct(5), i64(3), unread=1)
case("TopK", distinct(5), i64(1), sorted=0, unread=1)  # more would have no fixed order

case("Unique", distinct(2, 4))
case("Unique", distinct(2, 4), sorted=0, unread=3, obvious=lambda x, sorted: x.ravel())
case("Unique", distinct(*X), axis=1, unread=1)
case("Unique", distinct(*X), axis=-1, sorted=0, obvious=lambda x, axis, sorted: x)

for settings in ({}, {"batch_axis": 0, "time_axis": 1}):
    lengths = i64(2, 1, 3) if not settings else i64(2, 3)
    case("ReverseSequence", weight(3, 3, 2)[: 2 if settings else 3], lengths, **settings, opset=13)
    case("ReverseSequence", weight(3, 3, 2)[: 2 if settings else 3], lengths, **settings, fed=(1,))

for exclusive in (0, 1):
    for reverse in (0, 1):
        settings = {"exclusive": exclusive, "reverse": reverse}
        case("CumSum", weight(*X), np.array(1), **settings, opset=13)
        case("CumSum", weight(*X), np.array(-1), **settings, fed=(1,))
        case("CumSum", weight(*X), np.array(0, np.int32), **settings, fed=(1,))
case("CumSum", weight(5), i64(0), linear=True)

for upper in (0, 1):
    case("Trilu", weight(2, 4, 3), upper=upper, opset=14)
    for k in (-2, 1, 9):
        case("Trilu", weight(3, 4), np.array(k), upper=upper)
        case("Trilu", weight(2, 3, 4, 5), np.array(k), upper=upper, fed=(1,))

HOT = rng.integers(-4, 6, (2, 3))
for axis in (-1, 0, 1):
    case("OneHot", HOT, np.array(5), weight(2), axis=axis, wrt=(2,))
    case("OneHot", HOT, i64(4), weight(2), axis=axis, wrt=(2,), fed=(0, 1), opset=13, linear=True)
case("OneHot", HOT.astype(np.float64), np.array(5.0), weight(2), wrt=(2,))

case("Range", np.array(0.3), np.array(2.6), np.array(0.5), wrt=(0, 2), opset=13)
case("Range", np.array(0.3), np.array(-2.6), np.array(-0.5), wrt=(0, 2))
case("TopK", distinct(*X), i64(0), unread=1, fed=(1,))
