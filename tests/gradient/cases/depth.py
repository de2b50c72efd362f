"""Cases for blocks of depth."""

from __future__ import annotations

from .values import case, weight

case("DepthToSpace", weight(2, 8, 2, 3), blocksize=2, dynamic=(0,))
case("DepthToSpace", weight(2, 8, 2, 3), blocksize=2, mode="CRD", dynamic=(0,))
case("SpaceToDepth", weight(2, 2, 4, 6), blocksize=2, dynamic=(0,))

for opset in (13, 25):
    for mode in ("DCR", "CRD"):
        case(
            "DepthToSpace", weight(2, 8, 2, 3), blocksize=2, mode=mode, opset=opset, dynamic=(0, 2)
        )
        case("DepthToSpace", weight(1, 18, 2, 1), blocksize=3, mode=mode, dynamic=(0, 1, 2, 3))
    case("SpaceToDepth", weight(2, 2, 4, 6), blocksize=2, opset=opset)
    case("SpaceToDepth", weight(1, 2, 6, 3), blocksize=3, dynamic=(0, 1, 2, 3))
