"""Masks that ONNX Runtime on CPU computes in blocks of channels.

As comparisons masks are exact in every type. The runtime, though, keeps images in blocks of
channels between convolutions, and has to put them in order for a comparison and into blocks
again after it. So a mask is written as 1x1 convolutions of one channel each, which it keeps in
blocks: ``clip(2^k (y - low), 0, 1)`` is exactly 0 at the bound and, with ``2^k`` one over the
distance to the next number, exactly 1 at every other. The numbers next to 0 are too small for
that; those above ``2^-k`` (k is 126, 99 for ReLU6) have to do.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.blocked.layout import is_aligned
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers import masks

_STEEPEST = 126
_SMALL, _LARGE = 2.0**-20, 2.0**20  # bounds and what lies between them
_DIGITS = 24  # of single precision, in bits
_ONE = 5  # tanh(2^5) is 1


def passed_inside(c: Call, g: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """As :func:`onnxcam.gradient.helpers.masks.passed_inside`, in blocks where y can be in them."""
    moderate = (low is not None or high is not None) and _are_moderate(low, high)
    if c.node in c.walk.masked or not (c.walk.finite and is_aligned(c.y) and moderate):
        return masks.passed_inside(c, g, low, high)
    return c.op("Mul", g, inside(c, c.y, low, high))


def _are_moderate(low: float | None, high: float | None) -> bool:
    """Whether single precision can tell what is between the bounds by the scales below."""
    bounds = [bound for bound in (low, high) if bound is not None]
    if len(bounds) == 2:
        width = bounds[1] - bounds[0]
        if not _SMALL < width < _LARGE or float(np.float32(width)) != width:
            return False
    return all(bound == 0 or _SMALL < abs(bound) < _LARGE for bound in bounds)


def inside(c: Call, y: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """Return 1 between the bounds and 0 at them, by convolutions, of a ``y`` never beyond them.

    Of two bounds, the upper one is told first: ``z = clip(2^l (high - y) - 2^m, -d, 0)``, which is
    ``-d = -2^k (high - low)`` at the bound and 0 elsewhere. So ``2^k (y - low) + z`` is 0 at both
    bounds and large between them, and its tanh is 1. (Tanh and not Clip, which ONNX Runtime would
    not make a part of a convolution that adds something.)
    """
    sign = 1.0
    if low is None or high == 0.0:  # the same of -y
        low, high, sign = *(None if b is None else -b for b in (high, low)), -1.0
    assert low is not None
    steep = min(_STEEPEST, _steepness(low, math.inf))
    if high is None:
        return c.op("Clip", _line(c, y, sign, steep, low), c.like(0.0), c.like(1.0))
    wide, falls = math.ceil(math.log2(high - low)), _steepness(high, -math.inf)
    steep = min(steep + _ONE, _STEEPEST - wide - max(_DIGITS, falls))
    rest, falling = 2.0 ** (steep + wide), 2.0 ** (steep + wide + falls)
    below = scaled(c, y, -sign * falling, falling * high - rest)
    stop = c.op("Clip", below, c.like(-(2.0**steep) * (high - low)), c.like(0.0))
    return c.op("Tanh", c.op("Add", _line(c, y, sign, steep, low), stop))


def _line(c: Call, y: ir.Value, sign: float, steep: int, low: float) -> ir.Value:
    return scaled(c, y, sign * 2.0**steep, -(2.0**steep) * low)


def _steepness(bound: float, toward: float) -> int:
    """Return k, the distance of float32's next number being 2^-k."""
    following = np.nextafter(np.float32(bound), np.float32(toward))
    return -round(math.log2(abs(float(following) - bound)))


def scaled(c: Call, value: ir.Value, scale: float, shift: float = 0.0) -> ir.Value:
    """Return ``scale * value + shift`` of what is shaped like y but in space, by a convolution."""
    channels = c.static(c.y, 1)
    assert channels is not None
    return c.builder.scaled(value, channels, scale, shift)
