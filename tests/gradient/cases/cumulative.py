"""Cases for running products."""

from __future__ import annotations

import numpy as np

from .values import case, weight

ALL = (0, 1, 2, 3)
ZEROS = weight(3, 5, 3)
ZEROS[0, 1, 2] = ZEROS[1, 0, 0] = ZEROS[1, 3, 0] = 0


def cum_prod(x: np.ndarray, axis: np.ndarray, reverse: int = 0, exclusive: int = 0) -> np.ndarray:
    x = np.moveaxis(x, int(axis), 0)[:: -1 if reverse else 1]
    y = np.cumprod(x, axis=0)
    if exclusive:
        y = np.concatenate([np.ones_like(y[:1]), y[:-1]])
    return np.moveaxis(y[:: -1 if reverse else 1], 0, int(axis))


for reverse in (0, 1):
    for exclusive in (0, 1):
        for axis in (1, -1):
            case(
                "CumProd",
                ZEROS,
                np.array(axis),
                reverse=reverse,
                exclusive=exclusive,
                opset=26,
                dynamic=ALL,
                obvious=cum_prod,
            )
