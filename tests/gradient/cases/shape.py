"""Cases for operators that reshape, join, split and repeat."""

from __future__ import annotations

from .values import case, i64, weight

X = (2, 3, 4)

case("Reshape", weight(2, 3, 4), i64(2, 12))
case("Reshape", weight(2, 3, 4), i64(0, -1))
case("Squeeze", weight(2, 1, 4, 1), i64(1, 3), dynamic=(0, 2))
case("Unsqueeze", weight(2, 4), i64(0, 3), dynamic=(0,))
case("Flatten", weight(2, 3, 4), axis=1)
case("Flatten", weight(2, 3, 4, 2), axis=2)
case("Flatten", weight(2, 3, 4), axis=-1)
case("Transpose", weight(2, 3, 4), perm=[1, 2, 0])
case("Transpose", weight(2, 3, 4))
case("Expand", weight(3, 1), i64(2, 3, 4), dynamic=None)
case("Expand", weight(2, 3, 1), i64(2, 1, 4), dynamic=None)

# --- what is known of the new shape
case("Reshape", weight(*X), i64(4, -1), dynamic=None, fed=(1,))
case("Reshape", weight(*X), i64(2, 3, 4), allowzero=1, opset=14)
case("Reshape", weight(*X), i64(0, -1), opset=25)
case("Expand", weight(3, 1), i64(2, 3, 4), dynamic=None, fed=(1,), opset=13)
case("Expand", weight(2, 1, 4), i64(3, 1), fed=(1,))
case("Expand", weight(1, 1), i64(2, 2, 3, 4), fed=(1,), dynamic=(0, 1))
case("Squeeze", weight(2, 1, 4, 1), i64(1, -1), dynamic=(0, 2), opset=13)
case("Squeeze", weight(2, 1, 4, 1), dynamic=None)
case("Squeeze", weight(1))
case("Unsqueeze", weight(2, 4), i64(-1, 0), opset=21)
case("Transpose", weight(2, 3, 4, 5), perm=[3, 0, 2, 1], dynamic=(0, 1, 2, 3))
case("Flatten", weight(*X), axis=0)
case("Flatten", weight(*X), axis=3)

# --- joining and splitting
case("Concat", weight(2, 3, 2), weight(2, 1, 2), weight(2, 2, 2), wrt=(0, 1, 2), axis=1)
case("Concat", weight(2, 3), weight(2, 4), wrt=(1,), axis=-1, dynamic=(0, 1))
case("Concat", weight(2, 3), weight(4, 3), wrt=(0, 1), axis=0, dynamic=None)
case("Concat", weight(2, 3), weight(2, 0), weight(2, 4), wrt=(0, 2), axis=1)
case("Concat", weight(2, 3, 1), weight(2, 3, 2), wrt=(0, 1), axis=-1, dynamic=(0, 1, 2), opset=13)
case("Split", weight(2, 6), i64(2, 4), axis=1, outputs=2)
for opset in (13, 18, 26):
    case("Split", weight(2, 7), i64(2, 4, 1), axis=1, outputs=3, opset=opset, dynamic=(0, 1))
    case("Split", weight(2, 7), i64(2, 5), axis=-1, unread=1, opset=opset, fed=(1,))
case("Split", weight(6, 2), axis=0, outputs=3, opset=13)
case("Split", weight(7, 2), axis=0, num_outputs=3, outputs=3, opset=18)
case("Split", weight(7, 2), axis=0, num_outputs=3, outputs=1, unread=2, opset=18)
case("Split", weight(2, 7), i64(2, 4, 1), axis=1, outputs=1, unread=2, fed=(1,))

# --- repeating
for repeats in (i64(1, 2, 1), i64(2, 1, 3), i64(1, 1, 1)):
    case("Tile", weight(*X), repeats, opset=13)
    case("Tile", weight(*X), repeats, opset=13, dynamic=(0, 1, 2), fed=(1,))
case("Tile", weight(4), i64(3), dynamic=None)
case("Tile", weight(4, 1), i64(2, 5), dynamic=(0, 1))
