"""Pooling over windows that are listed one by one, and windows to pool over."""

from __future__ import annotations

from itertools import product

import numpy as np


def placed(n, k, s, d, before, after, ceil, auto):
    """The places that each window of one axis reads, padding included, and the padded end."""
    extent = d * (k - 1) + 1
    if auto.startswith("SAME"):
        total = max((-(-n // s) - 1) * s + extent - n, 0)
        before, after = total // 2, total - total // 2
        if auto == "SAME_LOWER":
            before, after = after, before
    elif auto == "VALID":
        before = after = 0
    room = n + before + after - extent
    count = (-(-room // s) if ceil else room // s) + 1
    if ceil and (count - 1) * s >= n + before:  # it would start in the padding after the end
        count -= 1
    return [[s * o - before + d * i for i in range(k)] for o in range(count)], n + after


def pooled(x, pool, kernel_shape, **options):
    """Call ``pool(elements, padded count)`` for each window; the former are ``[N, C, m]``."""
    space = len(kernel_shape)
    pads = options.get("pads", [0] * 2 * space)
    axes = [
        placed(
            x.shape[i + 2],
            kernel_shape[i],
            options.get("strides", [1] * space)[i],
            options.get("dilations", [1] * space)[i],
            pads[i],
            pads[space + i],
            options.get("ceil_mode", 0),
            options.get("auto_pad", "NOTSET"),
        )
        for i in range(space)
    ]
    y = np.zeros([*x.shape[:2], *(len(places) for places, _ in axes)])
    for index in np.ndindex(*y.shape[2:]):
        read = [axes[i][0][o] for i, o in enumerate(index)]
        real = [[p for p in r if 0 <= p < n] for r, n in zip(read, x.shape[2:], strict=True)]
        inside = [[p for p in r if p < end] for r, (_, end) in zip(read, axes, strict=True)]
        found = [x[(slice(None), slice(None), *place)] for place in product(*real)]
        elements = np.stack(found, axis=-1) if found else np.zeros([*x.shape[:2], 0])
        y[(slice(None), slice(None), *index)] = pool(elements, np.prod([len(i) for i in inside]))
    return y


SHAPES = [
    ((1, 2, 9), {"kernel_shape": [3], "strides": [2]}),
    ((1, 2, 10), {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}),
    ((2, 2, 6, 7), {"kernel_shape": [2, 3], "strides": [2, 2]}),
    ((1, 2, 8, 7), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ((1, 2, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 6, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}),
    (
        (1, 2, 4, 5, 6),
        {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2], "pads": [0, 1, 1, 0, 0, 1]},
    ),
]
DILATED = [
    ((1, 2, 9), {"kernel_shape": [3], "dilations": [2], "pads": [2, 1], "strides": [2]}),
    ((1, 2, 8, 9), {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 1]}),
    ((1, 2, 9, 9), {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [1] * 4, "ceil_mode": 1}),
]
AUTOMATIC = [
    (shape, {"auto_pad": auto, **options})
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    for shape, options in [
        ((1, 2, 8), {"kernel_shape": [3], "strides": [2]}),
        ((1, 2, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2]}),
        ((1, 2, 5, 6), {"kernel_shape": [4, 3]}),
        ((1, 2, 5, 4, 6), {"kernel_shape": [3, 2, 2], "strides": [2, 2, 1]}),
    ]
]
RUN = {"dynamic": (0, 1, 2, 3, 4)}
