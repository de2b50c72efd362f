"""Pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule
from onnxcam.gradient.windows import Windows, overhang, spread, windows


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
    kernel = [int(k) for k in c.attribute("kernel_shape", [])]
    w = windows(c, kernel)
    space = len(kernel)
    lengths = [c.static(c.x(0), i + 2) for i in range(space)]
    if not w.padded and kernel == lengths:
        return _expand_space(c, c.op("Div", g, c.like(float(np.prod(kernel)))))
    if w.padded:
        g = c.op("Mul", g, _shares(c, w))
    else:
        g = c.op("Div", g, c.like(float(np.prod(kernel))))
    folded = c.fold(g, c.y, keep=2)  # one channel each: [T*N*C, *S]
    folded = c.op("Unsqueeze", folded, c.builder.ints(1))
    ones = c.builder.constant(np.ones([1, 1, *kernel]), c.x(0).dtype)
    return c.unfold(spread(c, folded, ones, w, 1), c.x(0))


def _shares(c: Call, w: Windows) -> ir.Value:
    """Return what each window gives to one real element, ``[1, 1, *output space]``.

    Whatever the divisor counts, the average of ones is (real elements / divisor); divided by
    the number of real elements it is 1 / divisor.
    """
    space = len(w.kernel)
    ints, x = c.builder.ints, c.x(0)
    ones = c.op("Expand", c.like(1.0), c.op("Concat", ints(1, 1), c.builder.space(x), axis=0))
    kept = {name: a.value for name, a in c.node.attributes.items()}
    average = c.op("AveragePool", ones, **kept)
    lengths = [c.static(x, i + 2) for i in range(space)]
    counts = [c.static(c.y, i + 2) for i in range(space)]
    if w.begin is None or w.end is None:
        raise c.refuse("its automatic pads are only known at run time")
    for b, s, n, o in zip(w.begin, w.strides, lengths, counts, strict=True):
        if n is not None and o is not None and (o - 1) * s >= n + b:
            raise c.refuse("with ceil_mode, its last window lies in the padding alone")
    end = w.end
    if w.ceil_mode:
        over = overhang(c, w)
        if over is None:
            raise c.refuse("with ceil_mode, its windows are only known at run time")
        end = [max(o, 0) for o in over]
    kernel = c.builder.constant(np.ones([1, 1, *w.kernel]), x.dtype)
    real = c.op(
        "Conv",
        ones,
        kernel,
        pads=[*w.begin, *end],
        strides=w.strides,
        dilations=w.dilations,
        kernel_shape=w.kernel,
    )
    return c.op("Div", average, real)


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
