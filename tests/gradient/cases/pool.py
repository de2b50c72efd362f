"""Cases for pooling, against sums over windows that are listed one by one."""

from __future__ import annotations

from ..windows import AUTOMATIC, DILATED, RUN, SHAPES, pooled
from .values import case, distinct, weight


def average_pool(x, count_include_pad=0, **options):
    def pool(elements, padded):
        divisor = padded if count_include_pad else max(elements.shape[-1], 1)
        return elements.sum(axis=-1) / divisor

    return pooled(x, pool, **options)


def max_pool(x, storage_order=0, **options):
    return pooled(x, lambda e, _: e.max(axis=-1), **options)


case("MaxPool", distinct(2, 3, 6, 6), kernel_shape=[2, 2], strides=[2, 2])
case("MaxPool", distinct(2, 3, 7, 7), kernel_shape=[3, 3], strides=[2, 2])
case("MaxPool", distinct(1, 2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
case("MaxPool", distinct(1, 2, 6, 6), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
case("MaxPool", distinct(1, 2, 7, 6), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
case("MaxPool", distinct(1, 2, 8, 8), kernel_shape=[2, 2], dilations=[2, 2])
case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[2])
case("MaxPool", distinct(1, 2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2])
P = {"linear": True}
case("AveragePool", weight(2, 3, 7, 7), kernel_shape=[7, 7], **P)
case("AveragePool", weight(2, 3, 6, 7), kernel_shape=[2, 3], strides=[2, 2], **P)
case("AveragePool", weight(2, 3, 6, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, **P)
case(
    "AveragePool",
    weight(2, 3, 6, 6),
    kernel_shape=[3, 3],
    strides=[2, 2],
    pads=[1] * 4,
    count_include_pad=1,
    **P,
)
case("AveragePool", weight(1, 2, 6, 6), kernel_shape=[7, 7], pads=[0, 0, 1, 1], **P)
for include in (0, 1):
    case(
        "AveragePool",
        weight(1, 2, 8, 8),
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        pads=[1] * 4,
        count_include_pad=include,
        dynamic=(0,),
        opset=19,
        **P,
    )
case(
    "AveragePool",
    weight(1, 2, 7, 6),
    kernel_shape=[3, 3],
    strides=[2, 2],
    auto_pad="SAME_UPPER",
    dynamic=(0,),
    **P,
)
case("AveragePool", weight(2, 3, 9), kernel_shape=[3], strides=[2], **P)

for shape, options in [*SHAPES, *DILATED, *AUTOMATIC]:
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
for opset in (16, 22, 25):
    P = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "opset": opset}
    case("MaxPool", distinct(1, 2, 6, 7), obvious=max_pool, **P, **RUN)
    case("AveragePool", weight(1, 2, 6, 7), obvious=average_pool, **P, **RUN)
for order in (0, 1):  # with indices, which others may read
    case("MaxPool", distinct(1, 2, 6, 7), kernel_shape=[3, 2], storage_order=order, unread=1, **RUN)


# --- the whole space
def global_max_pool(x):
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


case("GlobalAveragePool", weight(2, 3, 4, 5))
case("GlobalAveragePool", weight(2, 3, 6))
case("GlobalMaxPool", distinct(2, 3, 4, 5))
for shape in ((2, 3, 6), (2, 3, 4, 5), (1, 2, 3, 2, 4)):
    for opset in (13, 22, 25):
        case("GlobalAveragePool", weight(*shape), opset=opset, linear=True)
        case("GlobalMaxPool", distinct(*shape), opset=opset, obvious=global_max_pool)
