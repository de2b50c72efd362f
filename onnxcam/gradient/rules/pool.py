"""Pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET, scatter_by_ids
from onnxcam.gradient.helpers.lengths import volume
from onnxcam.gradient.helpers.masks import masked_early
from onnxcam.gradient.helpers.pool_windows import (
    LAST_WINDOW,
    REFUSES,
    check_last_window,
    count_real,
    ones_like_space,
    pool_windows,
    spread_windows,
)
from onnxcam.gradient.helpers.strided import fitted
from onnxcam.gradient.helpers.tiled_max import tiled_max
from onnxcam.gradient.helpers.windows import Windows, overhang, windows
from onnxcam.gradient.registry import rule


def _overlaps(node: ir.Node) -> int:
    """Overlapping windows need a ScatterElements that adds, others do not."""
    kernel = node.attributes.get_ints("kernel_shape") or ()
    strides = node.attributes.get_ints("strides") or [1] * len(kernel)
    dilations = node.attributes.get_ints("dilations") or [1] * len(kernel)
    apart = all(
        k <= s and (d == 1 or k == 1) for k, s, d in zip(kernel, strides, dilations, strict=True)
    )
    return 13 if apart else ADDING_OPSET


def _max_pool(c: Call, g: ir.Value) -> ir.Value:
    """Scatter to the first maximum of each window.

    The indices come from a second MaxPool, so that the original one, without indices, stays
    fast.
    """
    g = masked_early(c, g)
    return to_maxima(c, g, max_windows(c))


def max_windows(c: Call) -> Windows:
    """Return the windows of a MaxPool."""
    w = windows(c, [int(k) for k in c.attribute("kernel_shape", [])])
    check_last_window(c, w)
    return w


def to_maxima(c: Call, g: ir.Value, w: Windows) -> ir.Value:
    """Return dx: the cotangent of each window, at its first maximum."""
    dx = tiled_max(c, g, w)
    if dx is not None:
        return dx
    x = c.x(0)
    kept = {name: a.value for name, a in c.node.attributes.items() if name != "storage_order"}
    _, indices = c.builder.op_many("MaxPool", [x], 2, **kept)
    apart = _overlaps(c.node) < ADDING_OPSET
    return c.split_t(scatter_by_ids(c, g, indices, volume(c, x), distinct=apart), x)


rule("MaxPool", _max_pool, opset=_overlaps, refuses=[LAST_WINDOW])


def _average_pool(c: Call, g: ir.Value) -> ir.Value:
    """Each window passes an equal share to the elements that it averages."""
    w = pool_windows(c)
    lengths = [c.static(c.x(0), i + 2) for i in range(len(w.kernel))]
    if not w.padded and w.kernel == lengths:
        return expand_space(c, c.op("Div", g, c.like(float(np.prod(w.kernel)))))
    size = float(np.prod(w.kernel))
    alike = not w.padded or (c.attribute("count_include_pad", 0) and not w.ceil_mode)
    if not alike:
        g = c.op("Mul", g, _shares(c, w))
    dx = _summed(c, g, w, 1.0 / size if alike else 1.0)
    if dx is not None:
        return dx
    if alike:
        g = c.op("Div", g, c.like(size))
    dx = _repeated(c, g, w)
    return spread_windows(c, g, w) if dx is None else dx


def _summed(c: Call, g: ir.Value, w: Windows, share: float) -> ir.Value | None:
    """With stride 1, dx is itself a sum over windows of g, times ``share``.

    It is written as a Conv and not as an AveragePool, since ONNX Runtime would merge a Pad before
    an AveragePool into it even where that takes no pads so large.
    """
    channels = c.static(c.x(0), 1)
    dense = all(step == 1 for step in (*w.strides, *w.dilations))
    if not dense or w.begin is None or w.end is None or channels is None:
        return None
    pads = [k - 1 - p for k, p in zip(w.kernel * 2, [*w.begin, *w.end], strict=True)]
    if min(pads) < 0:
        return None
    shares = c.builder.constant(np.full([channels, 1, *w.kernel], share), c.kind)
    dx = c.op("Conv", c.merge_t(g, c.y), shares, group=channels, kernel_shape=w.kernel, pads=pads)
    return c.split_t(dx, c.x(0), merged=True)


def _repeated(c: Call, g: ir.Value, w: Windows) -> ir.Value | None:
    """Where windows tile the input, dx is g, repeated over each window."""
    tiles = w.kernel == w.strides and w.begin == [0, 0] and w.dilations == [1, 1]
    over = overhang(c, w)
    if not tiles or over is None or c.rank(c.x(0)) != 4:
        return None
    dx = fitted(c, c.builder.repeat(c.merge_t(g, c.y), w.strides), [-o for o in over])
    return c.split_t(dx, c.x(0), merged=True)


def _shares(c: Call, w: Windows) -> ir.Value:
    """Return 1 / divisor of each window, ``[1, 1, *output space]``.

    Whatever the divisor counts, the average of ones is (real elements / divisor), and it is divided
    by the number of real elements. Windows in the padding alone get 0.
    """
    ones = ones_like_space(c)
    average = c.builder.copy(c.node, [ones])
    real = c.op("Max", count_real(c, ones, w), c.like(1.0))
    return c.op("Div", average, real)


rule("AveragePool", _average_pool, refuses=REFUSES)


def expand_space(c: Call, g: ir.Value) -> ir.Value:
    """Repeat ``[T, N, K, 1...]`` over the input's space."""
    sizes = c.dims(c.x(0))[2:]
    if all(isinstance(d, int) for d in sizes):
        shape = c.builder.ints(1, 1, 1, *(int(d) for d in sizes if isinstance(d, int)))
    else:
        shape = c.op("Concat", c.builder.ints(1), c.op("Shape", c.x(0)), axis=0)
    return c.op("Expand", g, shape)


def _global_average_pool(c: Call, g: ir.Value) -> ir.Value:
    """Every position takes the share g / positions."""
    return expand_space(c, c.op("Div", g, c.builder.positions(c.x(0))))


rule("GlobalAveragePool", _global_average_pool)


def _global_max_pool(c: Call, g: ir.Value) -> ir.Value:
    """The first maximum of each map takes all of g."""
    x, ints = c.x(0), c.builder.ints
    flat = c.op("Reshape", x, ints(0, 0, -1))
    first = c.op("ArgMax", flat, axis=-1, keepdims=0)
    depth = c.op("Gather", c.op("Shape", flat), c.builder.constant(np.int64(2)), axis=0)
    pair = c.builder.constant(np.array([0, 1], np.float32))
    hot = c.op("Reshape", c.op("OneHot", first, depth, pair, axis=-1), c.builder.shape(x))
    return c.op("Mul", g, hot if c.kind == ir.DataType.FLOAT else c.op("Cast", hot, to=c.kind))


rule("GlobalMaxPool", _global_max_pool)
