"""The gradient of MaxPool one axis after the other, in the runtime's blocked layout.

The maximum of a window is the maximum over its rows of each row's maximum, and its first place,
row by row, lies in the first row that attains it, at the first place there. Along one axis, what
is left of a cotangent after place ``j`` is what was left before times ``[x_j < y]``:
``G_(j+1) = G_j clip(2^126 (y - x_j), 0, 1)``, and place ``j`` receives ``G_j - G_(j+1)``. Places,
sums and shifts are said by convolutions of one channel each, all but one of a kernel's weights
being 0. That takes finite values: what may be infinite without an overflow (the input, what Pad
or Where put there) is left to the other forms.
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

_MOST = 3  # places along an axis; more are faster found by the runtime's own indices


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
    left = _along(c, c.merge_t(g, c.y), row_maxima, c.y, rows)
    return c.split_t(_along(c, left, x, row_maxima, columns), x, merged=True)


def _lengths(c: Call, axis: int) -> tuple[int, int]:
    length, count = c.static(c.x(0), axis), c.static(c.y, axis)
    assert length is not None and count is not None  # or there would be no overhang
    return length, count


def _zeros_are_free(c: Call) -> bool:
    """Whether x is nowhere negative, and no cotangent passes on where it is 0."""
    before = rectifiers_before(c.x(0))
    if before is None:
        return False
    nodes, bounds = before
    return bounds[0] == 0 and gate(c, nodes) and not is_wanted(c, nodes, c.x(0))


def _along(c: Call, g: ir.Value, x: ir.Value, y: ir.Value, line: _Line) -> ir.Value:
    """Hand ``g``, shaped as ``y``, to those ``x`` that are the first maxima along an axis."""
    left = [g]
    for place in range(line.kernel - 1):
        picked = _picked(c, x, place, line)
        left.append(c.op("Mul", left[-1], inside(c, c.op("Add", picked, y), 0.0, None)))
    places = -(-line.length // line.stride)
    phases = []
    for phase in range(line.stride):
        turn, first = divmod(phase + line.begin, line.stride)
        total = None
        for place in range(first, line.kernel, line.stride):
            offset = turn - (place - first) // line.stride
            for index, sign in ((place, 1.0), (place + 1, -1.0)):
                if index < len(left):
                    part = _shifted(c, left[index], sign, offset, places, line)
                    total = part if total is None else c.op("Add", part, total)
        assert total is not None
        phases.append(total)
    full = places * line.stride
    shape = [full if i == line.axis else n for i, n in enumerate(c.dims(x))]
    joined = interleaved(c, phases, line.axis, shape)
    if full == line.length:
        return joined
    return _one(c, joined, 1.0, 0, full - line.length + 1, (0, 0), line.axis)


def _picked(c: Call, x: ir.Value, place: int, line: _Line) -> ir.Value:
    """Return the negative of what each window has in a place."""
    end = line.stride * (line.count - 1) + line.kernel - line.begin - line.length
    return _one(c, x, -1.0, place, line.kernel, (line.begin, end), line.axis, line.stride)


def _shifted(
    c: Call, value: ir.Value, sign: float, offset: int, places: int, line: _Line
) -> ir.Value:
    """Return ``sign * value[a + offset]`` for ``places`` of a, 0 beyond the edges."""
    if sign == 1.0 and offset == 0 and places == line.count:
        return value
    begin = max(-offset, 0)
    place = offset + begin
    end = places - line.count - begin + place
    kernel = place + 1 + max(-end, 0)
    return _one(c, value, sign, place, kernel, (begin, end), line.axis)


def _one(
    c: Call,
    value: ir.Value,
    scale: float,
    place: int,
    kernel: int,
    pads: tuple[int, int],
    axis: int,
    stride: int = 1,
) -> ir.Value:
    """Return a convolution of each channel along one axis whose only weight is in one place.

    A negative pad at the end says that what lies there is not read.
    """
    channels = c.static(c.y, 1)
    assert channels is not None
    weight = np.zeros([channels, 1, kernel])
    weight[..., place] = scale
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
