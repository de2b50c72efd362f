"""The input gradient of strided convolutions that spread little: 1x1 and depthwise ones.

Their ``ConvTranspose`` is slow. Zeros between the cotangents (repeat each, then keep the first
of each block) make it a convolution of stride 1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call
from onnxcam.gradient.windows import Windows


def strided_input(
    c: Call, g: ir.Value, flipped: ir.Value, w: Windows, group: int
) -> ir.Value | None:
    """Return ``[B, C, H, W]`` from ``g``, ``[B, M, *output space]``.

    ``None`` where another form is faster or where only the run knows the lengths.
    """
    counts = [n for i in (2, 3) if (n := _length(c, c.y, i)) is not None]
    lengths = [n for i in (2, 3) if (n := _length(c, c.x(0), i)) is not None]
    if w.begin is None or len(counts) < 2 or len(lengths) < 2 or not c.builder.bounded:
        return None
    pointwise = all(k == 1 for k in w.kernel)
    if not pointwise and (group == 1 or group != c.static(c.x(0), 1)):
        return None
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    end = [n - s * o + b for n, s, o, b in zip(lengths, w.strides, counts, w.begin, strict=True)]
    common = {"dilations": w.dilations, "group": group, "kernel_shape": w.kernel}
    if pointwise and not any(w.begin):
        dx = _apart(c, c.op("Conv", g, flipped, **common), w.strides, counts)
        return _fitted(c, dx, end)
    if min([*begin, *end]) < 0:
        return None
    return c.op("Conv", _apart(c, g, w.strides, counts), flipped, pads=[*begin, *end], **common)


def _length(c: Call, value: ir.Value, axis: int) -> int | None:
    """Return the length of an axis, ``None`` also where there is no such axis or a third one."""
    return c.static(value, axis) if c.rank(value) == 4 else None


def _apart(c: Call, g: ir.Value, strides: list[int], counts: list[int]) -> ir.Value:
    """Put ``s - 1`` zeros after each element of ``[B, C, H, W]``, both ways."""
    scales = c.builder.constant(np.array([1, 1, *strides], np.float32))
    repeated = c.op(
        "Resize",
        g,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    first = np.zeros([s * o for s, o in zip(strides, counts, strict=True)])
    first[:: strides[0], :: strides[1]] = 1
    return c.op("Mul", repeated, c.builder.constant(first[None, None], c.kind))


def _fitted(c: Call, dx: ir.Value, end: list[int]) -> ir.Value:
    """Add or remove elements at the end of both spatial axes."""
    if not any(end):
        return dx
    return c.op("Pad", dx, c.builder.ints(0, 0, 0, 0, 0, 0, *end))
