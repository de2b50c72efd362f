"""Cases for normalization by neighbouring channels and by norms."""

from __future__ import annotations

import numpy as np

from .values import away, case, weight

ALL = (0, 1, 2, 3, 4)


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, bias: float = 1.0) -> np.ndarray:
    y = np.empty_like(x)
    for k in range(x.shape[1]):
        near = x[:, max(0, k - (size - 1) // 2) : k + size // 2 + 1]
        y[:, k] = x[:, k] / (bias + alpha / size * (near**2).sum(axis=1)) ** beta
    return y


case("LRN", weight(2, 7, 3, 3), size=5, alpha=0.5, beta=0.75, bias=2.0, obvious=lrn)
case("LRN", weight(2, 4, 3, 2), size=3, alpha=0.5, beta=0.6, obvious=lrn)
case("LRN", weight(2, 7, 3, 3), size=5, alpha=0.5, beta=0.75, bias=2.0, obvious=lrn, dynamic=ALL)
case("LRN", weight(2, 7, 3, 1), size=3, alpha=0.5, beta=0.5, obvious=lrn, dynamic=ALL, opset=13)


def lp(x: np.ndarray, p: int = 2, axis: int = -1) -> np.ndarray:
    return x / np.linalg.norm(x, ord=p, axis=axis, keepdims=True)


for opset in (13, 22):
    for p in (1, 2):
        case("LpNormalization", away(2, 3, 4), p=p, axis=1, opset=opset, dynamic=ALL, obvious=lp)
        case("LpNormalization", away(2, 3, 4), p=p, opset=opset, dynamic=ALL, obvious=lp)
case("LpNormalization", away(4, 5), obvious=lp)
