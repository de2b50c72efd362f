"""Cases for padding and cropping."""

from __future__ import annotations

import numpy as np

from .values import case, i64, weight

ALL = {"wrt": (0, 2), "linear": True}
ONE = {"linear": True}

case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), np.array(0.5))
case("Pad", weight(2, 3, 4), i64(0, 0, 2, 0, 0, 0))
case("Pad", weight(2, 3, 4), i64(0, 0, -1, 0, 0, -1), dynamic=(0,), linear=True)
case("Pad", weight(2, 3, 4), i64(1, 1), np.array(0.0), i64(-1), opset=18)

case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), np.array(0.5), **ALL)
case("Pad", weight(2, 3, 4), i64(0, 1, -2, 0, -1, 1), np.array(0.5), **ALL)
case("Pad", weight(2, 3, 4), i64(0, 0, 0, 0, 0, 0), np.array(0.5), **ALL)
case("Pad", weight(2, 3, 4), i64(2, -1, 1, 0), np.array([0.5]), i64(2, 0), opset=18, **ALL)
case("Pad", weight(5), i64(2, 1), np.array(1.5), **ALL)
case("Pad", weight(2, 3), i64(2, 0, 0, 0), opset=13, **ONE)
for opset in (18, 19, 21, 23, 24, 25):
    case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), np.array(0.5), opset=opset, **ALL)

# pads and axes that the run brings
case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, -1, 1), np.array(0.5), fed=(1,), **ALL)
case(
    "Pad", weight(2, 3, 4), i64(2, -1, 1, 0), np.array(0.5), i64(-1, 0), fed=(1, 3), opset=18, **ALL
)
case("Pad", weight(2, 3, 4), i64(2, 1), np.array(0.5), i64(-1), fed=(3,), opset=18, **ALL)

for mode in ("reflect", "edge", "wrap"):
    options = {"mode": mode, "opset": 19, "linear": True}
    case("Pad", weight(5), i64(2, 1), **options)
    case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 2, 3), **options)
    case("Pad", weight(1, 2, 4, 5), i64(0, 0, 1, 2, 0, 0, 3, 1), dynamic=(0, 1, 2, 3), **options)
    case("Pad", weight(2, 4, 5), i64(0, -1, 2, 0, 1, -1), **options)
    case("Pad", weight(2, 3, 4), i64(1, 2), None, i64(-1), **options)
    case("Pad", weight(2, 3, 4), i64(1, 1, 2, 0), None, i64(-1, 1), fed=(1, 3), **options)
    case(
        "Pad", weight(2, 3), i64(0, 1, 0, 2), np.array(0.5), mode=mode, opset=25, wrt=(0, 2), **ONE
    )
case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 2, 3), mode="reflect", opset=16, **ONE)
case("Pad", weight(2, 3, 4), i64(0, 4, 5, 0, 7, 9), mode="edge", opset=16, **ONE)

for shape in ((4, 5), (7, 3), (6, 8), (5, 2)):
    case("CenterCropPad", weight(5, 5), i64(*shape), opset=18, **ONE)
    case("CenterCropPad", weight(2, 5, 6), i64(*shape), axes=[1, -1], opset=22, **ONE)
    case("CenterCropPad", weight(2, 5, 6), i64(*shape), axes=[2, 1], fed=(1,), opset=18, **ONE)
case("CenterCropPad", weight(2, 7, 3), i64(4), axes=[1], opset=25, **ONE)
