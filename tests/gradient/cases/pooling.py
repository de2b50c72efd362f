"""Cases for pooling, against sums over windows that are listed one by one."""

from __future__ import annotations

from itertools import product

import numpy as np

from .values import away, case, distinct, weight


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
    """Call ``pool(elements, padded count, kernel size)`` for each window; the former ``[N, C, m]``."""
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


def average_pool(x, count_include_pad=0, **options):
    def pool(elements, padded):
        divisor = padded if count_include_pad else max(elements.shape[-1], 1)
        return elements.sum(axis=-1) / divisor

    return pooled(x, pool, **options)


def lp_pool(x, p=2, **options):
    return pooled(x, lambda e, _: (np.abs(e) ** p).sum(axis=-1) ** (1 / p), **options)


def max_pool(x, storage_order=0, **options):
    return pooled(x, lambda e, _: e.max(axis=-1), **options)


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

for index, (shape, options) in enumerate([*SHAPES, *DILATED, *AUTOMATIC]):
    case("MaxPool", distinct(*shape), obvious=max_pool, **options, **RUN)
    for include in (0, 1):
        case(
            "AveragePool",
            weight(*shape),
            count_include_pad=include,
            obvious=average_pool,
            opset=19,
            **options,
            **RUN,
        )
    case("LpPool", away(*shape), p=index % 3 + 1, obvious=lp_pool, opset=18, **options, **RUN)
case("LpPool", away(1, 2, 5, 6), kernel_shape=[2, 3], obvious=lp_pool, opset=13)
case("LpPool", away(1, 2, 5, 6), kernel_shape=[2, 3], p=4, obvious=lp_pool, opset=25)
for opset in (16, 22, 25):
    P = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "opset": opset}
    case("MaxPool", distinct(1, 2, 6, 7), obvious=max_pool, **P, **RUN)
    case("AveragePool", weight(1, 2, 6, 7), obvious=average_pool, **P, **RUN)
for order in (0, 1):  # with indices, which others may read
    case("MaxPool", distinct(1, 2, 6, 7), kernel_shape=[3, 2], storage_order=order, unread=1, **RUN)


# --- the whole space
def over_space(reduce):
    return lambda x, **options: reduce(x, tuple(range(2, x.ndim)), **options)


def largest(x, axes):
    return x.max(axes, keepdims=True)


def norm(x, axes, p):
    return (np.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p)


for shape in ((2, 3, 6), (2, 3, 4, 5), (1, 2, 3, 2, 4)):
    for opset in (13, 22, 25):
        case("GlobalAveragePool", weight(*shape), opset=opset, linear=True)
        case("GlobalMaxPool", distinct(*shape), opset=opset, obvious=over_space(largest))
    for p in (1, 2, 3):
        case("GlobalLpPool", away(*shape), p=p, obvious=over_space(norm))
