"""Cases for convolutions: every operand, geometry and group."""

from __future__ import annotations

from .values import case, weight

ALL = {"wrt": (0, 1, 2), "linear": True}
BOTH = {"wrt": (0, 1), "linear": True}

# --- Conv: dx, dw and db
case("Conv", weight(2, 3, 7), weight(4, 3, 3), weight(4), **ALL)
case("Conv", weight(2, 3, 8), weight(4, 3, 3), weight(4), strides=[2], pads=[1, 0], **ALL)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 2), weight(4), pads=[0, 1, 2, 0], **ALL)
case("Conv", weight(2, 3, 8, 7), weight(4, 3, 3, 3), weight(4), strides=[3, 2], **ALL)
case("Conv", weight(2, 4, 7, 6), weight(6, 2, 3, 3), weight(6), group=2, strides=[2, 1], **ALL)
case("Conv", weight(2, 4, 6, 6), weight(4, 1, 3, 3), weight(4), group=4, pads=[1] * 4, **ALL)
case("Conv", weight(2, 4, 6, 6), weight(8, 1, 3, 3), group=4, dilations=[2, 1], **BOTH)
case("Conv", weight(1, 2, 9, 8), weight(3, 2, 3, 3), dilations=[2, 1], strides=[2, 2], **BOTH)
case("Conv", weight(2, 3, 5, 5), weight(4, 3, 1, 1), strides=[2, 2], **BOTH)
case("Conv", weight(2, 2, 5, 5), weight(3, 2, 1, 1), **BOTH)
case("Conv", weight(1, 2, 4, 5, 4), weight(3, 2, 2, 3, 2), pads=[0, 1, 0, 1, 1, 0], **BOTH)
case("Conv", weight(2, 2, 5, 5, 4), weight(3, 2, 2, 3, 2), strides=[2, 2, 1], **BOTH)
# enough channels for the form by phases
case("Conv", weight(2, 16, 6, 7), weight(3, 16, 3, 3), strides=[2, 2], pads=[1] * 4, linear=True)
case("Conv", weight(1, 17, 7, 8), weight(2, 17, 4, 3), strides=[3, 2], pads=[2, 1, 0, 1], **BOTH)
case("Conv", weight(1, 16, 9, 6), weight(2, 16, 3, 2), strides=[2, 1], pads=[0, 0, 1, 1], **BOTH)
case("Conv", weight(1, 16, 8, 9), weight(2, 16, 5, 3), strides=[2, 3], linear=True)
case("Conv", weight(1, 16, 5, 5), weight(2, 16, 7, 7), strides=[2, 2], pads=[3] * 4, linear=True)
case("Conv", weight(1, 16, 6, 6), weight(2, 16, 2, 3), strides=[3, 2], linear=True)
for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    case("Conv", weight(2, 3, 7, 6), weight(4, 3, 4, 3), auto_pad=auto, **BOTH)
    case("Conv", weight(1, 3, 7, 8), weight(2, 3, 4, 2), auto_pad=auto, strides=[2, 3], **BOTH)
    case("Conv", weight(1, 3, 8), weight(2, 3, 2), auto_pad=auto, strides=[4], **BOTH)
case("Conv", weight(1, 3, 8), weight(2, 3, 3), auto_pad="VALID", dilations=[2], **BOTH)
for opset in (13, 22, 25):
    case("Conv", weight(2, 4, 7, 6), weight(6, 2, 3, 3), group=2, opset=opset, **BOTH)

# a kernel computed at run time: channels unknown, then its lengths too
case("Conv", weight(2, 4, 6, 6), weight(6, 2, 3, 3), group=2, dynamic=(0, 1), **BOTH)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 2), pads=[0, 1, 2, 0], dynamic=(2, 3), **BOTH)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 2), strides=[2, 3], dynamic=(1, 2, 3), **BOTH)
case("Conv", weight(2, 3, 7), weight(4, 3, 4), auto_pad="SAME_LOWER", dynamic=(2,), **BOTH)
case("Conv", weight(2, 3, 7), weight(4, 3, 2), auto_pad="SAME_UPPER", strides=[3], **BOTH)

# dx alone; linear, should an older reference evaluator not know the pads
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 3), pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 2), weight(4), pads=[0, 1, 2, 0], linear=True)
case("Conv", weight(2, 3, 8, 7), weight(4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], linear=True)
case("Conv", weight(1, 3, 9, 7), weight(2, 3, 3, 3), pads=[1, 0, 0, 2], strides=[3, 2], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(4, 1, 3, 3), pads=[1, 1, 1, 1], group=4, linear=True)
case("Conv", weight(2, 4, 7, 6), weight(6, 2, 3, 3), group=2, strides=[2, 1], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(6, 2, 3, 3), group=2, pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(8, 1, 3, 3), group=4, pads=[1, 1, 1, 1], linear=True)
case(
    "Conv", weight(1, 2, 9, 9), weight(3, 2, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2], linear=True
)
case("Conv", weight(1, 2, 9, 8), weight(3, 2, 3, 3), dilations=[2, 1], strides=[2, 2], linear=True)
case("Conv", weight(2, 3, 5, 5), weight(4, 3, 1, 1), linear=True)
case("Conv", weight(2, 3, 5, 5), weight(4, 3, 1, 1), strides=[2, 2], linear=True)
case("Conv", weight(1, 3, 5, 5), weight(4, 3, 1, 1), pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 3), auto_pad="SAME_UPPER", linear=True)
case(
    "Conv",
    weight(2, 3, 7, 8),
    weight(4, 3, 3, 3),
    auto_pad="SAME_UPPER",
    strides=[2, 2],
    linear=True,
)
case(
    "Conv",
    weight(2, 3, 7, 8),
    weight(4, 3, 4, 4),
    auto_pad="SAME_LOWER",
    strides=[2, 2],
    linear=True,
)
case("Conv", weight(2, 3, 7, 8), weight(4, 3, 4, 4), auto_pad="SAME_LOWER", linear=True)
case("Conv", weight(2, 3, 7, 8), weight(4, 3, 3, 3), auto_pad="VALID", strides=[2, 2], linear=True)
case("Conv", weight(1, 2, 6, 6), weight(2, 2, 2, 2), strides=[3, 3], linear=True)
case("Conv", weight(2, 3, 8), weight(4, 3, 3), pads=[1, 1], strides=[2], linear=True)
case("Conv", weight(1, 2, 4, 5, 4), weight(3, 2, 2, 3, 2), pads=[0, 1, 0, 1, 1, 0], linear=True)
case("Conv", weight(1, 2, 5, 5, 4), weight(3, 2, 2, 3, 2), strides=[2, 2, 1], linear=True)

# --- ConvTranspose
case("ConvTranspose", weight(2, 3, 4), weight(3, 2, 3), weight(2), strides=[2], **ALL)
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), weight(2), **ALL)
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 4), weight(2), pads=[1, 0, 2, 1], **ALL)
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), strides=[2, 2], pads=[1] * 4, **BOTH)
case("ConvTranspose", weight(1, 2, 4, 3), weight(2, 2, 2, 3), dilations=[2, 3], **BOTH)
case(
    "ConvTranspose",
    weight(2, 4, 4, 5),
    weight(4, 3, 3, 3),
    weight(6),
    group=2,
    strides=[2, 3],
    output_padding=[1, 2],
    **ALL,
)
case("ConvTranspose", weight(2, 4, 4), weight(4, 1, 3), group=4, strides=[2], pads=[1, 1], **BOTH)
case(
    "ConvTranspose",
    weight(1, 2, 3, 2, 3),
    weight(2, 2, 2, 3, 2),
    strides=[2, 1, 2],
    pads=[0, 1, 0, 0, 1, 1],
    **BOTH,
)
for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    options = {"auto_pad": auto, **BOTH}
    case("ConvTranspose", weight(2, 3, 4, 3), weight(3, 2, 3, 4), strides=[2, 2], **options)
    case("ConvTranspose", weight(1, 3, 4, 3), weight(3, 2, 4, 3), **options)
    case("ConvTranspose", weight(1, 2, 5), weight(2, 2, 3), strides=[2], dilations=[2], **options)
    case(
        "ConvTranspose", weight(1, 2, 4), weight(2, 2, 4), strides=[3], output_shape=[11], **options
    )
case("ConvTranspose", weight(1, 2, 4), weight(2, 2, 4), strides=[3], output_shape=[12], **BOTH)
case(
    "ConvTranspose",
    weight(1, 2, 4, 3),
    weight(2, 2, 4, 3),
    strides=[3, 2],
    output_shape=[11, 6],
    output_padding=[1, 0],
    **BOTH,
)
for opset in (13, 22, 25):
    case("ConvTranspose", weight(2, 3, 4), weight(3, 2, 3), strides=[2], opset=opset, **BOTH)

T = {"linear": True}
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), **T)
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), strides=[2, 2], pads=[1] * 4, **T)
case(
    "ConvTranspose",
    weight(2, 4, 4, 5),
    weight(4, 2, 3, 3),
    group=2,
    strides=[2, 2],
    output_padding=[1, 1],
    **T,
)
