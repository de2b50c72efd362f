"""Cases for putting windows, or one element of each, back into an image."""

from __future__ import annotations

import numpy as np

from .values import case, i64, rng, weight


def unpool(x, places, shape=None, kernel_shape=(), strides=None, pads=None):
    strides = strides or [1] * len(kernel_shape)
    pads = pads or [0] * 2 * len(kernel_shape)
    space = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(
            x.shape[2:], strides, kernel_shape, pads, pads[len(strides) :], strict=False
        )
    ]
    y = np.zeros([*x.shape[:2], *space] if shape is None else shape)
    for place, value in zip(places.ravel(), x.ravel(), strict=True):
        y.ravel()[place] = value
    return y


def somewhere(count: int, *shape: int) -> np.ndarray:
    return rng.permutation(count)[: np.prod(shape)].reshape(shape)


TWO = {"kernel_shape": [2, 2], "strides": [2, 2], "obvious": unpool}
PLACES = somewhere(2 * 3 * 4 * 6, 2, 3, 2, 3)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES, **TWO)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES, fed=(1,), opset=22, **TWO)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES, fed=(1,), opset=13, **TWO)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES, i64(2, 3, 5, 6), dynamic=None, **TWO)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES, i64(2, 3, 5, 6), fed=(1, 2), **TWO)
case("MaxUnpool", weight(2, 3, 2, 3), PLACES // 2, **TWO)  # several to one place
case(
    "MaxUnpool",
    weight(1, 2, 4),
    somewhere(12, 1, 2, 4),
    kernel_shape=[2],
    pads=[0, 0],
    strides=[2],
    obvious=unpool,
)
case(
    "MaxUnpool",
    weight(1, 1, 2, 2, 2),
    somewhere(64, 1, 1, 2, 2, 2),
    kernel_shape=[2] * 3,
    strides=[2] * 3,
    obvious=unpool,
)

P = {"opset": 18, "linear": True}
case("Col2Im", weight(1, 5, 5), i64(5, 5), i64(1, 5), **P)
case("Col2Im", weight(2, 18, 25), i64(5, 6), i64(3, 3), pads=[1, 0, 1, 1], **P)
case("Col2Im", weight(2, 8, 6), i64(5, 6), i64(2, 2), strides=[2, 2], fed=(1,), **P)
case("Col2Im", weight(2, 8, 8), i64(5, 6), i64(2, 2), dilations=[3, 2], pads=[0, 0, 0, 0], **P)
case("Col2Im", weight(2, 8, 8), i64(5, 6), i64(2, 2), dilations=[3, 2], fed=(1, 2), **P)
case("Col2Im", weight(1, 10, 4), i64(8), i64(5), **P)
case("Col2Im", weight(1, 8, 12), i64(3, 4, 3), i64(2, 2, 2), opset=25, linear=True)
