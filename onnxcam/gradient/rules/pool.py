"""Pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.blocks import tiled_max
from onnxcam.gradient.registry import Call, rule
from onnxcam.gradient.slide import hand_back, pool_windows, real_elements
from onnxcam.gradient.windows import Windows


def _overlaps(node: ir.Node) -> int:
    """Only overlapping windows need ScatterElements to add, which it can from opset 16 on."""
    kernel = node.attributes.get_ints("kernel_shape") or ()
    strides = node.attributes.get_ints("strides") or [1] * len(kernel)
    dilations = node.attributes.get_ints("dilations") or [1] * len(kernel)
    apart = all(
        k <= s and (d == 1 or k == 1) for k, s, d in zip(kernel, strides, dilations, strict=True)
    )
    return 13 if apart else 16


def _max_pool(c: Call, g: ir.Value) -> ir.Value:
    """Scatter to the first maximum of each window.

    The places come from a second MaxPool, so that the original one keeps its faster form
    without indices.
    """
    tiled = tiled_max(c, g, windows(c, [int(k) for k in c.attribute("kernel_shape", [])]))
    if tiled is not None:
        return tiled
    x, ints = c.x(0), c.builder.ints
    kept = {name: a.value for name, a in c.node.attributes.items() if name != "storage_order"}
    _, places = c.builder.op_many("MaxPool", [x], 2, **kept)
    flat = c.op("Reshape", g, c.op("Concat", _leading(c, g), ints(-1), axis=0))
    index = c.op("Expand", c.op("Reshape", places, ints(1, -1)), c.op("Shape", flat))
    size = c.op("Concat", _leading(c, g), c.op("Reshape", c.op("Size", x), ints(1)), axis=0)
    zeros = c.op("Expand", c.like(0.0), size)
    adding = {"reduction": "add"} if _overlaps(c.node) == 16 else {}
    return c.unfold(c.op("ScatterElements", zeros, index, flat, axis=1, **adding), x)


def _leading(c: Call, g: ir.Value) -> ir.Value:
    """Return ``T`` as a vector of one int64."""
    return c.op("Slice", c.op("Shape", g), c.builder.ints(0), c.builder.ints(1))


rule("MaxPool", _max_pool, opset=_overlaps)


def _average_pool(c: Call, g: ir.Value) -> ir.Value:
    """Each window hands an equal share to the elements it averaged."""
    w = pool_windows(c)
    lengths = [c.static(c.x(0), i + 2) for i in range(len(w.kernel))]
    if not w.padded and w.kernel == lengths:
        return _expand_space(c, c.op("Div", g, c.like(float(np.prod(w.kernel)))))
    if w.padded:
        g = c.op("Mul", g, _shares(c, w))
    else:
        g = c.op("Div", g, c.like(float(np.prod(w.kernel))))
    return hand_back(c, g, w)


def _shares(c: Call, w: Windows) -> ir.Value:
    """Return what each window gives to one real element, ``[1, 1, *output space]``.

    Whatever the divisor counts, the average of ones is (real elements / divisor); divided by
    the number of real elements it is 1 / divisor. Windows in the padding alone give nothing.
    """
    ints = c.builder.ints
    ones = c.op("Expand", c.like(1.0), c.op("Concat", ints(1, 1), c.builder.space(c.x(0)), axis=0))
    average = c.builder.copy(c.node, [ones])
    return c.op("Div", average, c.op("Max", real_elements(c, w, average), c.like(1.0)))


rule("AveragePool", _average_pool)


def _expand_space(c: Call, g: ir.Value) -> ir.Value:
    """Repeat ``[T, N, K, 1...]`` over the input's space."""
    sizes = c.dims(c.x(0))[2:]
    if all(isinstance(d, int) for d in sizes):
        shape = c.builder.ints(1, 1, 1, *(int(d) for d in sizes if isinstance(d, int)))
    else:
        shape = c.op("Concat", c.builder.ints(1), c.op("Shape", c.x(0)), axis=0)
    return c.op("Expand", g, shape)


rule(
    "GlobalAveragePool",
    lambda c, g: _expand_space(c, c.op("Div", g, c.builder.places(c.x(0)))),
)


def _global_max_pool(c: Call, g: ir.Value) -> ir.Value:
    """The first maximum of each map takes all."""
    x, ints = c.x(0), c.builder.ints
    flat = c.op("Reshape", x, ints(0, 0, -1))
    first = c.op("ArgMax", flat, axis=-1, keepdims=0)
    depth = c.op("Gather", c.op("Shape", flat), c.builder.constant(np.int64(2)), axis=0)
    pair = c.builder.constant(np.array([0, 1]), x.dtype or ir.DataType.FLOAT)
    hot = c.op("Reshape", c.op("OneHot", first, depth, pair, axis=-1), c.builder.shape(x))
    return c.op("Mul", g, hot)


rule("GlobalMaxPool", _global_max_pool)
