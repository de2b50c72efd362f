"""The gradient of MaxPool one axis after the other, in the runtime's blocked layout.

The maximum of a window is the maximum of its rows' maxima, and its first position is the first one
in the first row that attains it. Along one axis, ``G_j`` is what is left of a cotangent before
position ``j``: ``G_(j+1) = G_j [x_j < y] = G_j clip(2^126 (y - x_j), 0, 1)``, and position ``j``
receives ``G_j - G_(j+1)``. Positions are picked and shifted by depthwise convolutions whose kernels
have one weight other than 0. That takes finite values; inputs that may be infinite without an
overflow (the model's input, a result of Pad or Where) are left to the other forms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.blocked.layout import is_aligned, is_blocked
from onnxcam.gradient.blocked.masks import inside
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.interleave import interleaved
from onnxcam.gradient.helpers.masks import gate, is_wanted, rectifiers_before
from onnxcam.gradient.helpers.windows import Windows, overhang

_MOST = 3  # positions along an axis; beyond, the runtime's own indices are faster


@dataclass(frozen=True)
class _Line:
    """Windows along one axis (2 rows, 3 columns) of images."""

    axis: int
    kernel: int
    stride: int
    begin: int
    length: int
    count: int


def separated_max(c: Call, g: ir.Value, w: Windows) -> ir.Value | None:
    """Return ``[T, *input]`` from ``g``, ``[T, *output]``; ``None`` where this is not possible."""
    if not is_aligned(c.y) or not c.walk.finite or w.begin is None or w.dilations != [1, 1]:
        return None
    if not is_blocked(c.x(0), {}):
        return None
    over = overhang(c, w)
    if over is None or max(w.kernel) > _MOST:
        return None
    if any(k < s for k, s in zip(w.kernel, w.strides, strict=True)):
        return None
    if (any(w.begin) or max(over) > 0) and not _zeros_are_free(c):
        return None  # the convolutions read 0 beyond the edge
    x = c.x(0)
    lines = [
        _Line(i + 2, w.kernel[i], w.strides[i], w.begin[i], *_lengths(c, i + 2)) for i in range(2)
    ]
    rows, columns = lines
    row_maxima = c.op(
        "MaxPool",
        x,
        kernel_shape=[1, columns.kernel],
        strides=[1, columns.stride],
        pads=[0, columns.begin, 0, max(over[1], 0)],
    )
    row_maxima.type = x.type
    row_maxima.shape = ir.Shape([*c.dims(x)[:3], columns.count])
    of_rows = _along(c, c.merge_t(g, c.y), row_maxima, c.y, rows)
    return c.split_t(_along(c, of_rows, x, row_maxima, columns), x, merged=True)


def _lengths(c: Call, axis: int) -> tuple[int, int]:
    length, count = c.static(c.x(0), axis), c.static(c.y, axis)
    assert length is not None and count is not None  # or there would be no overhang
    return length, count


def _zeros_are_free(c: Call) -> bool:
    """Whether x >= 0 and no cotangent passes on where x = 0."""
    before = rectifiers_before(c.x(0))
    if before is None:
        return False
    nodes, bounds = before
    return bounds[0] == 0 and gate(c, nodes) and not is_wanted(c, nodes, c.x(0))


def _along(c: Call, g: ir.Value, x: ir.Value, y: ir.Value, line: _Line) -> ir.Value:
    """Return dx along one axis: ``g``, shaped as ``y``, at the first maximum of each window."""
    left = [g]
    for position in range(line.kernel - 1):
        picked = _picked(c, x, position, line)
        left.append(c.op("Mul", left[-1], inside(c, c.op("Add", picked, y), 0.0, None)))
    count = -(-line.length // line.stride)  # positions of one phase
    phases = []
    for phase in range(line.stride):
        turn, first = divmod(phase + line.begin, line.stride)
        total = None
        for position in range(first, line.kernel, line.stride):
            offset = turn - (position - first) // line.stride
            for index, sign in ((position, 1.0), (position + 1, -1.0)):
                if index < len(left):
                    part = _shifted(c, left[index], sign, offset, count, line)
                    total = part if total is None else c.op("Add", part, total)
        assert total is not None
        phases.append(total)
    full = count * line.stride
    shape = [full if i == line.axis else n for i, n in enumerate(c.dims(x))]
    joined = interleaved(c, phases, line.axis, shape)
    if full == line.length:
        return joined
    return _one_weight(c, joined, 1.0, 0, full - line.length + 1, (0, 0), line.axis)


def _picked(c: Call, x: ir.Value, position: int, line: _Line) -> ir.Value:
    """Return ``-x`` at one position of each window."""
    end = line.stride * (line.count - 1) + line.kernel - line.begin - line.length
    return _one_weight(c, x, -1.0, position, line.kernel, (line.begin, end), line.axis, line.stride)


def _shifted(
    c: Call, value: ir.Value, sign: float, offset: int, count: int, line: _Line
) -> ir.Value:
    """Return ``sign * value[a + offset]`` for ``0 <= a < count``, 0 beyond the edges."""
    if sign == 1.0 and offset == 0 and count == line.count:
        return value
    begin = max(-offset, 0)
    position = offset + begin
    end = count - line.count - begin + position
    kernel = position + 1 + max(-end, 0)
    return _one_weight(c, value, sign, position, kernel, (begin, end), line.axis)


def _one_weight(
    c: Call,
    value: ir.Value,
    scale: float,
    position: int,
    kernel: int,
    pads: tuple[int, int],
    axis: int,
    stride: int = 1,
) -> ir.Value:
    """Append a depthwise convolution along one axis with ``scale`` as its only weight.

    A negative pad at the end means that the elements there are not read.
    """
    channels = c.static(c.y, 1)
    assert channels is not None
    weight = np.zeros([channels, 1, kernel])
    weight[..., position] = scale
    rows = axis == 2
    before, after = pads[0], max(pads[1], 0)
    return c.op(
        "Conv",
        value,
        c.builder.constant(weight[..., None] if rows else weight[:, :, None], c.kind),
        group=channels,
        kernel_shape=[kernel, 1] if rows else [1, kernel],
        strides=[stride, 1] if rows else [1, stride],
        pads=[before, 0, after, 0] if rows else [0, before, 0, after],
    )
