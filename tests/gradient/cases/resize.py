"""Cases for Resize: every mode and system of coordinates; linear, so ONNX Runtime is the oracle."""

from __future__ import annotations

from itertools import product

import numpy as np

from .values import case, i64, weight


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


SYSTEMS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
ROI = f32(0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1)
L = {"linear": True, "opset": 19}

for system in SYSTEMS:
    roi = ROI if system == "tf_crop_and_resize" else None
    S = {"coordinate_transformation_mode": system, **L}
    for scales, size in (((2, 3), (1, 2, 3, 4)), ((0.6, 1.7), (1, 1, 5, 7))):
        resized = (weight(*size), roi, f32(1, 1, *scales))
        for rounding in ROUNDINGS:
            case("Resize", *resized, mode="nearest", nearest_mode=rounding, **S)
        case("Resize", *resized, mode="linear", **S)
        for outside in (0, 1):
            case("Resize", *resized, mode="cubic", exclude_outside=outside, **S)
    resized = (weight(1, 1, 5, 4), roi, f32(1, 1, 1.1, 1.6))  # a scale that changes no length
    case("Resize", *resized, mode="nearest", nearest_mode="floor", **S)
    case("Resize", *resized, mode="linear", **S)
    for size, mode in (((7, 5), "nearest"), ((3, 5), "linear"), ((1, 9), "cubic")):
        resized = (weight(2, 1, 4, 5), roi, None, i64(2, 1, *size))
        case("Resize", *resized, mode=mode, extrapolation_value=3.0, cubic_coeff_a=-0.5, **S)
    for outside, mode in enumerate(("linear", "cubic")):
        resized = (weight(1, 1, 7, 6), roi, f32(1, 1, 0.4, 0.7))
        case("Resize", *resized, mode=mode, antialias=1, **S)
        resized = (weight(1, 1, 7, 6), roi, f32(1, 1, 0.5, 2))
        case("Resize", *resized, mode=mode, antialias=1, exclude_outside=outside, **S)

# other ranks, and scales of every axis
case("Resize", weight(4), None, f32(2.5), mode="nearest", **L)
case("Resize", weight(3, 4), None, f32(2.5, 0.5), mode="nearest", **L)
case("Resize", weight(3, 4), None, f32(2.5, 0.5), mode="linear", **L)
case("Resize", weight(3, 4), None, f32(2.5, 0.8), mode="cubic", **L)
case("Resize", weight(2, 3, 4), None, f32(1, 1, 2), mode="nearest", **L)
case("Resize", weight(2, 3, 4), None, f32(1, 1, 1.5), mode="linear", **L)
case("Resize", weight(2, 3, 4), None, f32(2, 2, 1.5), mode="nearest", **L)
case("Resize", weight(1, 2, 3, 2, 4), None, f32(1, 1, 2, 2, 3), mode="nearest", **L)
case("Resize", weight(1, 2, 3, 2, 4), None, f32(1, 1, 2, 1.5, 0.5), mode="linear", **L)
case("Resize", weight(1, 2, 3, 2, 4), None, f32(1, 1, 2, 1.5, 0.5), mode="nearest", **L)
case("Resize", weight(1, 4, 3, 2), None, f32(1, 2, 1.5, 1), mode="linear", **L)
case("Resize", weight(1, 1, 4, 6), None, f32(1, 1, 1, 1), mode="linear", **L)
case("Resize", weight(1, 1, 4, 6), None, f32(1, 1, 1.1, 1.1), mode="linear", **L)

# whole repeats
for system, rounding in (("asymmetric", "floor"), *product(SYSTEMS[:3], ROUNDINGS[:2])):
    R = {"coordinate_transformation_mode": system, "nearest_mode": rounding}
    case("Resize", weight(2, 3, 4), None, f32(1, 1, 3), **R, **L)
    case("Resize", weight(2, 3, 2, 3), None, f32(1, 1, 4, 2), **R, **L)
    case("Resize", weight(2, 3, 2, 3), None, None, i64(2, 3, 2, 9), **R, **L)
case("Resize", weight(1, 2, 3, 2, 2), None, f32(1, 1, 2, 1, 3), linear=True, opset=13)

# axes, policies
A = {"axes": [3, 2], **L}
case("Resize", weight(1, 2, 4, 5), None, f32(1.5, 2), mode="linear", **A)
case("Resize", weight(1, 2, 4, 5), None, None, i64(3, 9), mode="cubic", **A)
case(
    "Resize",
    weight(1, 2, 4, 5),
    f32(0.1, 0, 0.9, 1.2),
    None,
    i64(3, 9),
    mode="linear",
    coordinate_transformation_mode="tf_crop_and_resize",
    **A,
)
for policy, system in product(("not_larger", "not_smaller"), (*SYSTEMS[:2], SYSTEMS[5])):
    K = {"keep_aspect_ratio_policy": policy, "coordinate_transformation_mode": system, **A}
    roi = f32(0.1, 0, 0.9, 1.2) if system == "tf_crop_and_resize" else None
    for mode in ("nearest", "linear", "cubic"):
        case("Resize", weight(1, 1, 4, 5), roi, None, i64(8, 6), mode=mode, **K)
        case(
            "Resize",
            weight(1, 1, 5, 7),
            roi,
            None,
            i64(4, 3),
            mode=mode,
            fed=(3,),
            dynamic=(2, 3),
            **K,
        )
case(
    "Resize",
    weight(4, 5),
    None,
    None,
    i64(9, 9),
    mode="linear",
    keep_aspect_ratio_policy="not_larger",
    **L,
)

# scales, sizes and roi that the run brings
for mode in ("nearest", "linear", "cubic"):
    case("Resize", weight(1, 2, 4, 5), None, f32(1, 1, 1.4, 2), mode=mode, fed=(2,), **L)
    case(
        "Resize",
        weight(1, 2, 4, 5),
        None,
        f32(1, 1, 1.2, 2),
        mode=mode,
        fed=(2,),
        linear=True,
        opset=13,
    )
    case(
        "Resize",
        weight(1, 2, 4, 5),
        None,
        None,
        i64(1, 2, 7, 4),
        mode=mode,
        fed=(3,),
        dynamic=(1, 2, 3),
        **L,
    )
    case(
        "Resize",
        weight(1, 2, 4, 5),
        ROI,
        None,
        i64(1, 2, 7, 4),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        fed=(1, 3),
        dynamic=(1, 2, 3),
        linear=True,
        opset=13,
    )
case(
    "Resize", weight(1, 2, 4, 5), f32(), None, i64(1, 2, 7, 4), mode="linear", linear=True, opset=13
)
case(
    "Resize",
    weight(1, 2, 4, 5),
    f32(),
    f32(),
    i64(1, 2, 7, 4),
    mode="linear",
    linear=True,
    opset=13,
)
for opset in (13, 18, 25):
    case(
        "Resize",
        weight(1, 2, 4, 5),
        None,
        f32(1, 1, 1.4, 2),
        mode="linear",
        linear=True,
        opset=opset,
    )
