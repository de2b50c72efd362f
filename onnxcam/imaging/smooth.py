"""Bicubic resizing, for pictures: seven by seven elements show no diamonds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import Axis

_A = -0.5  # Keys 1981: the cubic convolution of third order, Pillow's too


def smoothed(raw: NDArray[Any], places: Sequence[Axis]) -> NDArray[np.float32]:
    """Return :func:`bicubic` without what is below 0, its largest value 1."""
    heat = np.maximum(bicubic(raw, places), 0)
    peak = heat.max(initial=0)
    return heat / peak if peak > 0 else heat


def bicubic(maps: NDArray[Any], axes: Sequence[Axis]) -> NDArray[np.float32]:
    """Resize maps by cubic convolution along each axis, with half-pixel centres.

    Beyond a map's ends its outermost elements go on. Between elements a result may lie a little
    above or below all of them.

    Args:
        maps: ``[..., *s]``, as many last axes as there are in ``axes``; what is not finite counts
            as 0.
        axes: where each axis lies on what was explained.

    Returns:
        ``[..., *S]`` float32, 0 outside the visible part.
    """
    found = np.where(np.isfinite(maps), maps, 0).astype(np.float64)
    for n, axis in enumerate(axes):
        at = n - len(axes)
        weights = _weights(axis, maps.shape[at])
        found = np.moveaxis(np.moveaxis(found, at, -1) @ weights.T, -1, at)
    return np.ascontiguousarray(found, np.float32)


def _weights(axis: Axis, count: int) -> NDArray[np.float64]:
    """Return the weight of each of ``count`` elements in each pixel, ``[length, count]``."""
    weights = np.zeros((axis.length, count))
    if not count:
        return weights
    pixels = np.arange(axis.first, axis.last)
    place = np.clip((pixels + 0.5) * axis.scale + axis.offset - 0.5, 0, count - 1)
    low = np.floor(place).astype(np.intp)
    for step in (-1, 0, 1, 2):
        element = np.clip(low + step, 0, count - 1)
        np.add.at(weights, (pixels, element), _cubic(np.abs(place - (low + step))))
    return weights


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
