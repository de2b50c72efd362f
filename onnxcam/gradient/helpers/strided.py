"""The input gradient of strided convolutions without ``ConvTranspose``, which is slow.

For 1x1 and depthwise kernels, zeros between the cotangents (repeat each, then keep the first of
each block) make it a convolution of stride 1. For others, every s-th row and column of the result
is a convolution of its own with every s-th weight, and these phases are interleaved (the
sub-pixel form of Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an
Efficient Sub-Pixel Convolutional Neural Network", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.interleave import interleaved
from onnxcam.gradient.helpers.windows import Windows


def strided_input(
    c: Call, g: ir.Value, flipped: Callable[[], ir.Value], w: Windows, group: int
) -> ir.Value | None:
    """Return ``[B, C, H, W]`` from ``g``, ``[B, M, *output space]``.

    ``flipped`` appends the flipped kernel. The result is ``None`` where another form is faster,
    or where lengths are only known at run time.
    """
    if c.rank(c.x(0)) != 4 or w.begin is None or not c.walk.finite:
        return None
    counts = [n for i in (2, 3) if (n := c.static(c.y, i)) is not None]
    lengths = [n for i in (2, 3) if (n := c.static(c.x(0), i)) is not None]
    if len(counts) < 2 or len(lengths) < 2:
        return None
    pointwise = all(k == 1 for k in w.kernel)
    if not pointwise and group == 1:
        return _by_phases(c, g, flipped, w, lengths, counts)
    if not pointwise and group != c.static(c.x(0), 1):
        return None
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    end = [n - s * o + b for n, s, o, b in zip(lengths, w.strides, counts, w.begin, strict=True)]
    common = {"dilations": w.dilations, "group": group, "kernel_shape": w.kernel}
    if pointwise and not any(w.begin):
        dx = _apart(c, c.op("Conv", g, flipped(), **common), w.strides, counts)
        return fitted(c, dx, end)
    if min([*begin, *end]) < 0:
        return None
    return c.op("Conv", _apart(c, g, w.strides, counts), flipped(), pads=[*begin, *end], **common)


def _apart(c: Call, g: ir.Value, strides: list[int], counts: list[int]) -> ir.Value:
    """Put ``s - 1`` zeros after each element of ``[B, C, H, W]`` along both spatial axes."""
    first = np.zeros([s * o for s, o in zip(strides, counts, strict=True)])
    first[:: strides[0], :: strides[1]] = 1
    return c.op("Mul", c.builder.repeat(g, strides), c.builder.constant(first[None, None], c.kind))


def fitted(c: Call, dx: ir.Value, end: list[int]) -> ir.Value:
    """Add ``end`` zeros at the end of each spatial axis; crop where it is negative."""
    ints = c.builder.ints
    for axis, more in enumerate(end, 2):
        if more < 0:
            dx = c.op("Slice", dx, ints(0), ints(more), ints(axis))
    zeros = [max(more, 0) for more in end]
    return c.op("Pad", dx, ints(0, 0, 0, 0, 0, 0, *zeros)) if any(zeros) else dx


def _by_phases(
    c: Call,
    g: ir.Value,
    flipped: Callable[[], ir.Value],
    w: Windows,
    lengths: list[int],
    counts: list[int],
) -> ir.Value | None:
    channels = c.static(c.x(0), 1)
    if channels is None or channels < _FEWEST or w.dilations != [1, 1] or w.begin is None:
        return None
    axes = [
        [_phase(r, k, s, b, n, o) for r in range(s)]
        for k, s, b, n, o in zip(w.kernel, w.strides, w.begin, lengths, counts, strict=True)
    ]
    if any(part is None for phases in axes for part in phases):
        return None
    weight = flipped()
    rows, columns = ([part for part in phases if part is not None] for phases in axes)
    lines = []
    for row in rows:
        parts = [_one_phase(c, g, weight, row, column, w.strides) for column in columns]
        lines.append(interleaved(c, parts, 3, [None, channels, row.count, _full(columns)]))
    dx = interleaved(c, lines, 2, [None, channels, _full(rows), _full(columns)])
    if [_full(rows), _full(columns)] == lengths:
        return dx
    return c.op("Slice", dx, c.builder.ints(0, 0), c.builder.ints(*lengths), c.builder.ints(2, 3))


_FEWEST = 16  # channels; with fewer, ConvTranspose is as fast


@dataclass(frozen=True)
class _Phase:
    """Every s-th element along one axis.

    It reads ``taps`` weights of the flipped kernel, every s-th from ``first`` on.
    """

    first: int
    taps: int
    begin: int  # pads
    end: int
    count: int


def _full(phases: list[_Phase]) -> int:
    return sum(phase.count for phase in phases)


def _phase(
    r: int, kernel: int, stride: int, begin: int, length: int, outputs: int
) -> _Phase | None:
    """Elements ``s a + r`` read only the weights ``k = r + begin (mod s)``."""
    turn, first = divmod(r + begin, stride)
    taps = -(-(kernel - first) // stride)
    count = -(-length // stride)
    pads = taps - 1 - turn, count + turn - outputs
    if taps < 1 or min(pads) < 0:
        return None
    return _Phase(kernel - 1 - first - stride * (taps - 1), taps, *pads, count)


def _one_phase(
    c: Call, g: ir.Value, flipped: ir.Value, row: _Phase, column: _Phase, strides: list[int]
) -> ir.Value:
    ints = c.builder.ints
    starts, steps = ints(row.first, column.first), ints(*strides)
    weight = c.op("Slice", flipped, starts, ints(2**62, 2**62), ints(2, 3), steps)
    pads = [row.begin, column.begin, row.end, column.end]
    return c.op("Conv", g, weight, pads=pads, kernel_shape=[row.taps, column.taps])
