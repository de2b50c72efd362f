"""Masks that ONNX Runtime on CPU computes in blocks of channels.

Written as comparisons, masks are exact in every type. But the runtime keeps images in blocks of
channels between convolutions, and leaves that layout for a comparison. So a mask is written with
depthwise 1x1 convolutions, which keep it: ``clip(2^k (y - low), 0, 1)`` is exactly 0 at the bound
and, if ``2^-k`` is the distance from the bound to the next float32, exactly 1 at all others. Next
to a bound of 0 that distance is too small: numbers below ``2^-k`` (k is 126, 99 for ReLU6) pass
only in part.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.blocked.layout import is_aligned
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers import masks

_STEEPEST = 126  # the largest exponent k
_SMALL, _LARGE = 2.0**-20, 2.0**20  # limits of the bounds and of the distance between them
_DIGITS = 24  # bits of a float32 significand
_ONE = 5  # tanh(2^5) is 1


def passed_inside(c: Call, g: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """As :func:`onnxcam.gradient.helpers.masks.passed_inside`, in blocks where y allows them."""
    moderate = (low is not None or high is not None) and _are_moderate(low, high)
    if c.node in c.walk.masked or not (c.walk.finite and is_aligned(c.y) and moderate):
        return masks.passed_inside(c, g, low, high)
    return c.op("Mul", g, inside(c, c.y, low, high))


def _are_moderate(low: float | None, high: float | None) -> bool:
    """Whether the formulas of :func:`inside` are exact in float32 for these bounds."""
    bounds = [bound for bound in (low, high) if bound is not None]
    if len(bounds) == 2:
        width = bounds[1] - bounds[0]
        if not _SMALL < width < _LARGE or float(np.float32(width)) != width:
            return False
    return all(bound == 0 or _SMALL < abs(bound) < _LARGE for bound in bounds)


def inside(c: Call, y: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """Return 1 where ``low < y < high`` and 0 at the bounds; ``y`` is never outside them.

    With two bounds, ``z = clip(2^l (high - y) - 2^m, -d, 0)`` is ``-d = -2^k (high - low)`` at the
    upper bound and 0 elsewhere. So ``2^k (y - low) + z`` is 0 at both bounds and large between
    them, where its tanh is 1. (Tanh and not Clip, which ONNX Runtime would not merge into a
    convolution that also adds a tensor.)
    """
    sign = 1.0
    if low is None or high == 0.0:  # use -y
        low, high, sign = *(None if b is None else -b for b in (high, low)), -1.0
    assert low is not None
    k = min(_STEEPEST, _steepness(low, math.inf))
    if high is None:
        return c.op("Clip", _line(c, y, sign, k, low), c.like(0.0), c.like(1.0))
    width, at_high = math.ceil(math.log2(high - low)), _steepness(high, -math.inf)
    k = min(k + _ONE, _STEEPEST - width - max(_DIGITS, at_high))
    m = k + width
    slope = 2.0 ** (m + at_high)  # 2^l
    falling = scaled(c, y, -sign * slope, slope * high - 2.0**m)
    z = c.op("Clip", falling, c.like(-(2.0**k) * (high - low)), c.like(0.0))
    return c.op("Tanh", c.op("Add", _line(c, y, sign, k, low), z))


def _line(c: Call, y: ir.Value, sign: float, k: int, low: float) -> ir.Value:
    """Return ``2^k (sign * y - low)``."""
    return scaled(c, y, sign * 2.0**k, -(2.0**k) * low)


def _steepness(bound: float, toward: float) -> int:
    """Return k, where 2^-k is the distance from ``bound`` to the next float32."""
    following = np.nextafter(np.float32(bound), np.float32(toward))
    return -round(math.log2(abs(float(following) - bound)))


def scaled(c: Call, value: ir.Value, scale: float, shift: float = 0.0) -> ir.Value:
    """Return ``scale * value + shift`` by a convolution; ``value`` has the channels of y."""
    channels = c.static(c.y, 1)
    assert channels is not None
    return c.builder.scaled(value, channels, scale, shift)
