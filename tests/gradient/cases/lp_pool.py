"""Cases for pooling by norms, against sums over windows that are listed one by one."""

from __future__ import annotations

import numpy as np

from ..windows import AUTOMATIC, DILATED, RUN, SHAPES, pooled
from .values import away, case


def lp_pool(x, p=2, **options):
    return pooled(x, lambda e, _: (np.abs(e) ** p).sum(axis=-1) ** (1 / p), **options)


for index, (shape, options) in enumerate([*SHAPES, *DILATED, *AUTOMATIC]):
    case("LpPool", away(*shape), p=index % 3 + 1, obvious=lp_pool, opset=18, **options, **RUN)
case("LpPool", away(1, 2, 5, 6), kernel_shape=[2, 3], obvious=lp_pool, opset=13)
case("LpPool", away(1, 2, 5, 6), kernel_shape=[2, 3], p=4, obvious=lp_pool, opset=25)


# --- the whole space
def global_lp_pool(x, p):
    return (np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)


for shape in ((2, 3, 6), (2, 3, 4, 5), (1, 2, 3, 2, 4)):
    for p in (1, 2, 3):
        case("GlobalLpPool", away(*shape), p=p, obvious=global_lp_pool)
