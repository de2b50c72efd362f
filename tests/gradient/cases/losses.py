"""Cases for losses: reductions, weights, targets that do not count."""

from __future__ import annotations

import numpy as np

from .values import case, positive, rng, weight

ALL = (0, 1, 2, 3)


def likelihood(
    x: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
) -> np.ndarray:
    counted = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    safe = np.where(counted, target, 0)
    share = counted * (1.0 if weights is None else weights[safe])
    loss = -share * np.take_along_axis(x, safe[:, None], axis=1)[:, 0]
    if reduction == "none":
        return loss
    return loss.sum() / (share.sum() if reduction == "mean" else 1.0)


def cross_entropy(x: np.ndarray, *operands: np.ndarray, **settings: object) -> np.ndarray:
    logarithms = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return likelihood(logarithms, *operands, **settings)


T2 = rng.integers(0, 4, (2, 3, 2))
T2[0, 0] = 1
OUTSIDE = T2.copy()
OUTSIDE[0, 0] = -100
for op, obvious, opsets in (
    ("NegativeLogLikelihoodLoss", likelihood, (13, 22)),
    ("SoftmaxCrossEntropyLoss", cross_entropy, (13, 26)),
):
    for opset in opsets:
        for reduction in ("none", "sum", "mean"):
            common = {"reduction": reduction, "opset": opset, "obvious": obvious, "dynamic": ALL}
            x = weight(2, 4, 3, 2)
            case(op, weight(3, 4), rng.integers(0, 4, 3), **common)
            case(op, weight(3, 4), rng.integers(0, 4, 3), positive(4), wrt=(0, 2), **common)
            case(op, x, T2, positive(4), ignore_index=1, wrt=(0, 2), **common)
            case(op, x, T2, positive(4), fed=(1,), **common)
            case(op, x, OUTSIDE, ignore_index=-100, fed=(1,), **common)
            case(op, x, OUTSIDE.astype(np.int32), positive(4), ignore_index=-100, **common)
