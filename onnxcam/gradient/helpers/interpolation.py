"""Interpolation between pixels, written with operators that have rules.

Along one axis, position ``p`` lies ``t = p - floor(p)`` beyond pixel ``floor(p)``. The pixels
around it, the *taps*, are read with weights that are polynomials in ``t``; over several axes the
weights multiply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import Length, combine, scalar, vector

Mode = Literal["nearest", "linear", "cubic"]
Edge = Literal["zeros", "border", "reflection"]

_A = -0.75  # of the cubic convolution, Keys 1981
_FIRST = {"linear": 0, "cubic": -1}  # the first tap, counted from floor(p)
_CONSTANT: dict[str, list[float]] = {"linear": [1, 0], "cubic": [0, 1, 0, 0]}
_POWERS: dict[str, list[list[float]]] = {  # weights by powers of t, from t^1 on
    "linear": [[-1, 1]],
    "cubic": [[_A, 0, -_A, 0], [-2 * _A, -_A - 3, 2 * _A + 3, _A], [_A, _A + 2, -_A - 2, -_A]],
}


@dataclass(frozen=True)
class Taps:
    """The ``K`` pixels that positions read along one axis, ``[B, P, K]``, and their weights."""

    index: ir.Value
    weight: ir.Value | None  # None is 1
    each: int  # K


def taps(
    c: Call, position: ir.Value, size: Length, mode: Mode, edge: Edge, corners: bool = False
) -> Taps:
    """Return the taps around ``position``, ``[B, P]``, on an axis of ``size`` pixels.

    Beyond the image lie zeros, its last pixels, or its mirror image: about the centre of the
    last pixel (``corners``), or about its outer edge.
    """
    op, ints = c.op, c.builder.ints
    if mode == "nearest":
        index, weight = op("Unsqueeze", _whole(c, op("Round", position)), ints(2)), None
        each = 1
    else:
        before = _whole(c, op("Floor", position))
        t = op("Unsqueeze", op("Sub", position, op("Cast", before, to=c.kind)), ints(2))
        weight = _weights(c, t, mode)
        each = len(_CONSTANT[mode])
        steps = ints(*range(_FIRST[mode], _FIRST[mode] + each))
        index = op("Add", op("Unsqueeze", before, ints(2)), steps)
    last = scalar(c, combine(c, "Sub", size, 1))
    clipped = op("Max", op("Min", index, last), ints(0))
    if edge == "reflection":
        return Taps(_mirrored(c, index, size, corners), weight, each)
    if edge == "zeros":
        inside = op("Cast", op("Equal", index, clipped), to=c.kind)
        weight = inside if weight is None else op("Mul", weight, inside)
    return Taps(clipped, weight, each)


def _whole(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Cast", value, to=ir.DataType.INT64)


def _weights(c: Call, t: ir.Value, mode: Mode) -> ir.Value:
    powers = [t]
    while len(powers) < len(_POWERS[mode]):
        powers.append(c.op("Mul", powers[-1], t))
    stacked = c.op("Concat", *powers, axis=2) if len(powers) > 1 else t
    table = c.builder.constant(np.array(_POWERS[mode], float), c.kind)
    constant = c.builder.constant(np.array(_CONSTANT[mode], float), c.kind)
    return c.op("Add", c.op("MatMul", stacked, table), constant)


def _mirrored(c: Call, index: ir.Value, size: Length, corners: bool) -> ir.Value:
    """Map the indices of pixels into the image, which alternates with its mirror image."""
    op = c.op
    period = combine(c, "Sub", combine(c, "Mul", size, 2), 2 if corners else 0)
    period = combine(c, "Max", period, 1)
    within = op("Mod", index, scalar(c, period))
    other = combine(c, "Sub", period, 0 if corners else 1)
    return op("Min", within, op("Sub", scalar(c, other), within))


def sample(c: Call, pixels: ir.Value, axes: list[Taps], sizes: list[Length]) -> ir.Value:
    """Return ``[B, C, P]``: ``pixels``, ``[B, C, product of sizes]``, read at the taps."""
    op, ints = c.op, c.builder.ints
    each = int(np.prod([a.each for a in axes]))
    flat, weight = None, None
    for number, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        others = [i + 2 for i in range(len(axes)) if i != number]
        index = op("Unsqueeze", axis.index, ints(*others)) if others else axis.index
        flat = index if flat is None else op("Add", op("Mul", flat, scalar(c, size)), index)
        if axis.weight is not None:
            own = op("Unsqueeze", axis.weight, ints(*others)) if others else axis.weight
            weight = own if weight is None else op("Mul", weight, own)
    assert flat is not None
    channels = op("Slice", op("Shape", pixels), ints(1), ints(2))
    index = op("Expand", op("Reshape", flat, ints(0, 1, -1)), vector(c, 1, channels, 1))
    read = op("GatherElements", pixels, index, axis=2)
    if weight is None:
        return read
    weighted = op(
        "Mul",
        op("Reshape", read, ints(0, 0, -1, each)),
        op("Reshape", weight, ints(0, 1, -1, each)),
    )
    return op("ReduceSum", weighted, ints(3), keepdims=0)
