"""Reading images between their pixels, said by operators that have rules.

Along one axis a place ``p`` lies ``t`` beyond pixel ``floor(p)``; the pixels around it, the
*taps*, are read with weights that are polynomials in ``t``. With several axes the weights
multiply.
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
    """Pixels that are read along one axis, ``[B, P, K]``, and their weights."""

    index: ir.Value
    weight: ir.Value | None  # None is 1
    many: int


def taps(
    c: Call, place: ir.Value, count: Length, mode: Mode, edge: Edge, corners: bool = False
) -> Taps:
    """Return the taps around ``place``, ``[B, P]``, on an axis of ``count`` pixels.

    Beyond the image lie zeros, its last pixels, or its mirror image: about the middle of the
    last pixel (``corners``), or about its outer edge.
    """
    op, ints = c.op, c.builder.ints
    if mode == "nearest":
        index, weight = op("Unsqueeze", _whole(c, op("Round", place)), ints(2)), None
        many = 1
    else:
        before = _whole(c, op("Floor", place))
        t = op("Unsqueeze", op("Sub", place, op("Cast", before, to=c.kind)), ints(2))
        weight = _weights(c, t, mode)
        many = len(_CONSTANT[mode])
        steps = ints(*range(_FIRST[mode], _FIRST[mode] + many))
        index = op("Add", op("Unsqueeze", before, ints(2)), steps)
    last = scalar(c, combine(c, "Sub", count, 1))
    clipped = op("Max", op("Min", index, last), ints(0))
    if edge == "reflection":
        return Taps(_mirrored(c, index, count, corners), weight, many)
    if edge == "zeros":
        inside = op("Cast", op("Equal", index, clipped), to=c.kind)
        weight = inside if weight is None else op("Mul", weight, inside)
    return Taps(clipped, weight, many)


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


def _mirrored(c: Call, index: ir.Value, count: Length, corners: bool) -> ir.Value:
    """Fold the numbers of pixels back into the image, whose mirror images alternate with it."""
    op = c.op
    period = combine(c, "Sub", combine(c, "Mul", count, 2), 2 if corners else 0)
    period = combine(c, "Max", period, 1)
    within = op("Mod", index, scalar(c, period))
    other = combine(c, "Sub", period, 0 if corners else 1)
    return op("Min", within, op("Sub", scalar(c, other), within))


def sample(c: Call, pixels: ir.Value, axes: list[Taps], counts: list[Length]) -> ir.Value:
    """Return ``[B, C, P]``: ``pixels``, ``[B, C, product of counts]``, read at the taps."""
    op, ints = c.op, c.builder.ints
    many = int(np.prod([a.many for a in axes]))
    flat, weight = None, None
    for number, (axis, count) in enumerate(zip(axes, counts, strict=True)):
        apart = [i + 2 for i in range(len(axes)) if i != number]
        index = op("Unsqueeze", axis.index, ints(*apart)) if apart else axis.index
        step = index if flat is None else op("Add", op("Mul", flat, scalar(c, count)), index)
        flat = step
        if axis.weight is not None:
            own = op("Unsqueeze", axis.weight, ints(*apart)) if apart else axis.weight
            weight = own if weight is None else op("Mul", weight, own)
    assert flat is not None
    channels = op("Slice", op("Shape", pixels), ints(1), ints(2))
    index = op("Expand", op("Reshape", flat, ints(0, 1, -1)), vector(c, 1, channels, 1))
    read = op("GatherElements", pixels, index, axis=2)
    if weight is None:
        return read
    weighted = op(
        "Mul",
        op("Reshape", read, ints(0, 0, -1, many)),
        op("Reshape", weight, ints(0, 1, -1, many)),
    )
    return op("ReduceSum", weighted, ints(3), keepdims=0)
