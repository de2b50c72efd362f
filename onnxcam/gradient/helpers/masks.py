"""Masks: pass a cotangent where an activation lies between two bounds.

As comparisons they are exact in every type. ONNX Runtime on CPU, though, keeps images in blocks
of channels between convolutions, and has to put them in order for a comparison and into blocks
again after it. Where that would happen, the mask is said by 1x1 convolutions of one channel
each, which it keeps in blocks: ``clip(2^k (y - low), 0, 1)`` is exactly 0 at the bound and, with
``2^k`` one over the distance to the next number, exactly 1 at every other. The numbers next to 0
are too small for that; those above ``2^-k`` (k is 126, 99 for ReLU6) have to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.blocked.layout import is_aligned
from onnxcam.gradient.registry import Call
from onnxcam.graph.values import constant

Bounds = tuple[float | None, float | None]

_STEEPEST = 126
_SMALL, _LARGE = 2.0**-20, 2.0**20  # bounds and what lies between them
_DIGITS = 24  # of single precision, in bits
_ONE = 5  # tanh(2^5) is 1


def passed_inside(c: Call, g: ir.Value, low: float | None, high: float | None) -> ir.Value:
    """Return ``g`` where ``low < y < high`` and 0 elsewhere; ``y`` is never outside the bounds."""
    if (low is None and high is None) or c.node in c.builder.masked:
        return g
    if c.builder.bounded and in_blocks(c) and _are_moderate(low, high):
        return c.op("Mul", g, inside(c, c.y, low, high))
    if low == 0.0 and high is None:  # what is not negative is true, but for 0
        return c.mask(c.op("Cast", c.y, to=ir.DataType.BOOL), g)
    return compared(c, g, *(None if b is None else c.like(b) for b in (low, high)))


def compared(c: Call, g: ir.Value, low: ir.Value | None, high: ir.Value | None) -> ir.Value:
    """As :func:`passed_inside`, of bounds that the run may bring."""
    between = None
    for bound, compare in ((low, "Greater"), (high, "Less")):
        if bound is not None:
            side = c.op(compare, c.y, bound)
            between = side if between is None else c.op("And", between, side)
    return g if between is None else c.mask(between, g)


def masked_early(c: Call, g: ir.Value) -> ir.Value:
    """Apply the mask of the rectifier before a MaxPool to the cotangent of the maxima.

    Only elements that are the maximum of a window get any of it, so that ``y`` is inside the
    bounds where they are; and there are fewer maxima than elements.
    """
    x = c.x(0)
    before = rectifiers_before(x)
    if before is None or c.builder.policy == "deconvnet":  # which forgets the input
        return g
    nodes, bounds = before
    joined = {node.outputs[0] for node in nodes} | {x}
    if is_wanted(c, nodes, x) or any(len(v.uses()) > 1 for v in joined):
        return g  # there are other cotangents, or other uses of this one
    c.builder.masked.update(nodes)
    return passed_inside(c, g, *bounds)


def is_wanted(c: Call, nodes: Sequence[ir.Node], x: ir.Value) -> bool:
    """Whether rectifiers or what joins them have cotangents of their own, or bounds get any."""
    around = {v for node in nodes for v in (*node.outputs, *node.inputs[1:])} | {x}
    return not around.isdisjoint(c.builder.ends)


def rectifiers_before(x: ir.Value) -> tuple[list[ir.Node], Bounds] | None:
    """Return the rectifiers, all of the same bounds, whose results ``x`` is or joins."""
    node = x.producer()
    if node is None or node.domain:
        return None
    joined = node.op_type == "Concat"
    nodes = [v.producer() for v in node.inputs if v is not None] if joined else [node]
    bounds = [None if n is None or n.domain else rectifier_bounds(n) for n in nodes]
    if bounds[0] is None or any(b != bounds[0] for b in bounds):
        return None
    return [n for n in nodes if n is not None], bounds[0]


def rectifier_bounds(node: ir.Node) -> Bounds | None:
    """Return the bounds of Relu, or of Clip where they are stored; ``None`` of anything else."""
    if node.op_type == "Relu":
        return 0.0, None
    if node.op_type != "Clip":
        return None
    operands = [node.inputs[i] if i < len(node.inputs) else None for i in (1, 2)]
    stored = [constant(v) for v in operands]
    for value, array in zip(operands, stored, strict=True):
        if value is not None and (array is None or array.size != 1):
            return None
    low, high = (None if array is None else float(array.item()) for array in stored)
    return low, high


def in_blocks(c: Call) -> bool:
    """Whether the gradient is written for blocks, and y can be in them."""
    return c.builder.blocked and is_aligned(c.y)


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
