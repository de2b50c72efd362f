"""The input gradient of strided convolutions that spread little: 1x1 and depthwise ones.

Their ``ConvTranspose`` is slow. Zeros between the cotangents (repeat each, then keep the first
of each block) make it a convolution of stride 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call
from onnxcam.gradient.windows import Windows


def strided_input(
    c: Call, g: ir.Value, flipped: Callable[[], ir.Value], w: Windows, group: int
) -> ir.Value | None:
    """Return ``[B, C, H, W]`` from ``g``, ``[B, M, *output space]``.

    ``flipped`` appends the turned kernel. The result is ``None`` where another form is faster or
    where only the run knows the lengths.
    """
    if c.rank(c.x(0)) != 4 or w.begin is None or not c.builder.bounded:
        return None
    counts = [n for i in (2, 3) if (n := c.static(c.y, i)) is not None]
    lengths = [n for i in (2, 3) if (n := c.static(c.x(0), i)) is not None]
    if len(counts) < 2 or len(lengths) < 2:
        return None
    pointwise = all(k == 1 for k in w.kernel)
    if not pointwise and (group == 1 or group != c.static(c.x(0), 1)):
        return None
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    end = [n - s * o + b for n, s, o, b in zip(lengths, w.strides, counts, w.begin, strict=True)]
    common = {"dilations": w.dilations, "group": group, "kernel_shape": w.kernel}
    if pointwise and not any(w.begin):
        dx = _apart(c, c.op("Conv", g, flipped(), **common), w.strides, counts)
        return _fitted(c, dx, end)
    if min([*begin, *end]) < 0:
        return None
    return c.op("Conv", _apart(c, g, w.strides, counts), flipped(), pads=[*begin, *end], **common)


def _apart(c: Call, g: ir.Value, strides: list[int], counts: list[int]) -> ir.Value:
    """Put ``s - 1`` zeros after each element of ``[B, C, H, W]``, both ways."""
    first = np.zeros([s * o for s, o in zip(strides, counts, strict=True)])
    first[:: strides[0], :: strides[1]] = 1
    return c.op("Mul", c.builder.repeat(g, strides), c.builder.constant(first[None, None], c.kind))


def _fitted(c: Call, dx: ir.Value, end: list[int]) -> ir.Value:
    """Add or remove elements at the end of both spatial axes."""
    if not any(end):
        return dx
    return c.op("Pad", dx, c.builder.ints(0, 0, 0, 0, 0, 0, *end))
