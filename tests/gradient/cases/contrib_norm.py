"""Cases for the normalization that ONNX Runtime's optimizer writes."""

from __future__ import annotations

from functools import partial

import numpy as np

from .values import case, positive, weight

contrib = partial(case, domain="com.microsoft")


def simplified_norm(x, scale, axis=-1, epsilon=1e-5):
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon) * scale


def skip_norm(x, skip, gamma, beta=None, bias=None, epsilon=1e-12):
    total = x + skip + (0 if bias is None else bias)
    centred = total - total.mean(axis=-1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return h * gamma + (0 if beta is None else beta)


def skip_simplified_norm(x, skip, gamma, bias=None, epsilon=1e-12):
    total = x + skip + (0 if bias is None else bias)
    return simplified_norm(total, gamma, epsilon=epsilon)


for opset in (13, 17, 26):
    case("SimplifiedLayerNormalization", weight(2, 3, 6), positive(6), wrt=(0, 1), opset=opset,
         epsilon=1e-3, obvious=simplified_norm, dynamic=(0,))  # fmt: skip
case("SimplifiedLayerNormalization", weight(2, 3, 4), positive(3, 4), axis=1,
     obvious=simplified_norm, dynamic=(0,))  # fmt: skip
for rest in ((), (weight(6),), (weight(6), weight(6))):
    places = (0, 1, 2, *range(3, 3 + len(rest)))
    contrib("SkipLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6), *rest,
            epsilon=1e-3, wrt=places, obvious=skip_norm, dynamic=None)  # fmt: skip
contrib("SkipLayerNormalization", weight(2, 3, 6), weight(3, 6), positive(6), weight(6),
        epsilon=1e-3, wrt=(0, 1), obvious=skip_norm, opset=18, dynamic=None)  # fmt: skip
contrib("SkipLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6), weight(6),
        epsilon=1e-3, obvious=skip_norm)  # fmt: skip
for rest in ((), (weight(6),)):
    places = (0, 1, 2, *range(3, 3 + len(rest)))
    contrib("SkipSimplifiedLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6),
            *rest, epsilon=1e-3, wrt=places, obvious=skip_simplified_norm,
            dynamic=None)  # fmt: skip


def embed(words, segments, word, position, segment, gamma, beta, mask=None, places=None, **how):
    places = np.arange(words.shape[1]) if places is None else places
    total = word[words] + position[places]
    total = total if segments is None else total + segment[segments]
    return skip_norm(total, 0.0, gamma, beta, **how)


ids = np.array([[3, 0, 5, 3], [1, 1, 2, 6]], np.int32)
kinds = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.int32)
tables = (weight(7, 6), weight(5, 6))
for segments, rest, wrt in (
    ((kinds, weight(2, 6)), (), (2, 3, 4, 5, 6)),
    ((None, None), (), (2, 3, 5, 6)),
    ((kinds, weight(2, 6)), (None, np.array([[1, 0, 2, 4], [0, 1, 2, 3]], np.int32)), (2, 3, 4)),
):
    contrib("EmbedLayerNormalization", ids, segments[0], *tables, segments[1], positive(6),
            weight(6), *rest, epsilon=1e-3, wrt=wrt, obvious=embed, unread=1,
            dynamic=None)  # fmt: skip
