"""Cases for DeformConv, kept away from pixels, where the slope jumps."""

from __future__ import annotations

import numpy as np

from .values import case, rng, weight


def deform_conv(x, w, offset, bias=None, mask=None, strides=(1, 1), pads=(0,) * 4, **options):
    group, parts = options.get("group", 1), options.get("offset_group", 1)
    dilations = options.get("dilations", (1, 1))
    (n, channels, *counts), (filters, depth, *kernel) = x.shape, w.shape
    rows, columns = offset.shape[2:]
    y = np.zeros((n, filters, rows, columns))
    for b, c, i, j, row, column in np.ndindex(n, channels, *kernel, rows, columns):
        part, k = c // (channels // parts), i * kernel[1] + j
        moved = offset[b, (part * kernel[0] * kernel[1] + k) * 2 :][:2, row, column]
        high = row * strides[0] - pads[0] + i * dilations[0] + moved[0]
        wide = column * strides[1] - pads[1] + j * dilations[1] + moved[1]
        top, left = int(np.floor(high)), int(np.floor(wide))
        value = 0.0
        for p in (top, top + 1):
            for q in (left, left + 1):
                if 0 <= p < counts[0] and 0 <= q < counts[1]:
                    value += (1 - abs(high - p)) * (1 - abs(wide - q)) * x[b, c, p, q]
        if mask is not None:
            value *= mask[b, part * kernel[0] * kernel[1] + k, row, column]
        where = c // depth * (filters // group)
        y[b, where : where + filters // group, row, column] += (
            value * w[where : where + filters // group, c % depth, i, j]
        )
    return y if bias is None else y + bias[:, None, None]


def moves(*shape: int) -> np.ndarray:
    return rng.integers(-2, 2, shape) + rng.choice([0.2, 0.4, 0.6, 0.8], shape)


D = {"obvious": deform_conv}
case(
    "DeformConv",
    weight(1, 2, 4, 4),
    weight(3, 2, 2, 2),
    moves(1, 8, 3, 3),
    weight(3),
    rng.uniform(0.2, 1, (1, 4, 3, 3)),
    wrt=(0, 1, 2, 3, 4),
    kernel_shape=[2, 2],
    opset=19,
    **D,
)
case(
    "DeformConv",
    weight(2, 1, 4, 5),
    weight(1, 1, 3, 2),
    moves(2, 12, 4, 4),
    pads=[1, 0, 1, 0],
    kernel_shape=[3, 2],
    wrt=(0, 1, 2),
    opset=22,
    **D,
)
case(
    "DeformConv",
    weight(1, 4, 5, 4),
    weight(2, 2, 2, 2),
    moves(1, 16, 2, 2),
    None,
    rng.uniform(0.2, 1, (1, 8, 2, 2)),
    strides=[2, 2],
    dynamic=(0, 1),
    dilations=[2, 1],
    pads=[0, 0, 0, 1],
    group=2,
    offset_group=2,
    wrt=(0, 1, 2, 4),
    opset=22,
    **D,
)
case(
    "DeformConv",
    weight(1, 4, 3, 4),
    weight(4, 1, 1, 2),
    moves(1, 8, 3, 3),
    weight(4),
    group=4,
    offset_group=2,
    dynamic=(0, 1),
    wrt=(0, 1, 2, 3),
    opset=25,
    **D,
)
case(
    "DeformConv",
    weight(1, 2, 4, 4),
    weight(3, 2, 2, 2),
    moves(1, 8, 3, 3),
    dynamic=(0,),
    opset=19,
    **D,
)
