"""Cases for matrix products and determinants."""

from __future__ import annotations

import numpy as np

from .values import case, weight

ALL = (0, 1, 2, 3)

case("MatMul", weight(3, 4), weight(4, 5), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 3, 4), weight(4, 5))
case("MatMul", weight(2, 3, 4), weight(2, 4, 5), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 1, 3, 4), weight(3, 4, 2), wrt=(0, 1), dynamic=None)
case("MatMul", weight(4), weight(4), wrt=(0, 1), dynamic=None)
case("MatMul", weight(4), weight(2, 4, 3), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 3, 4), weight(4), wrt=(0, 1), dynamic=None)
for a, b in [
    ((3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((1, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (1, 4, 5)),
    ((2, 1, 1, 4), (1, 3, 4, 5)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (4,)),
    ((4,), (4,)),
]:
    case("MatMul", weight(*a), weight(*b), wrt=(0, 1), dynamic=ALL, opset=13)

case("Gemm", weight(3, 4), weight(4, 5), weight(5), wrt=(0, 1, 2), dynamic=None)
case("Gemm", weight(3, 4), weight(5, 4), weight(3, 1), transB=1, alpha=0.5, beta=2.0)
case(
    "Gemm",
    weight(4, 3),
    weight(5, 4),
    np.array(0.3),
    wrt=(0, 1, 2),
    transA=1,
    transB=1,
    alpha=0.5,
    beta=2.0,
    dynamic=None,
)
for bias in ((5,), (1, 5), (3, 1), (1,), ()):
    case("Gemm", weight(3, 4), weight(4, 5), weight(*bias), wrt=(0, 1, 2), dynamic=ALL)
case("Gemm", weight(3, 4), weight(4, 5), wrt=(0, 1), alpha=0.3, dynamic=ALL)
case("Gemm", weight(4, 3), weight(4, 5), weight(5), wrt=(0, 1, 2), transA=1, dynamic=ALL)
case("Gemm", weight(3, 4), weight(5, 4), weight(5), wrt=(0, 1, 2), transB=1, beta=0.5, dynamic=ALL)

for n in (1, 2, 3, 4):
    case("Det", weight(2, n, n), dynamic=(0,), opset=13)
case("Det", weight(2, 3, 3, 3), dynamic=(0, 1), opset=22)
SINGULAR = weight(3, 3)
SINGULAR[2] = SINGULAR[0] + SINGULAR[1]
case("Det", SINGULAR, dynamic=None)
case("Det", np.zeros((3, 3)), dynamic=None)
