"""Maps with one, two or three spatial axes, brought to the size of what was explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import kernels
from onnxcam.kernels.view import Axis, View


def upsample(maps: NDArray[Any], axes: Sequence[Axis]) -> NDArray[np.float32]:
    """Resize maps ``[..., *s]`` linearly along each axis, with half-pixel centres.

    Two axes are what the kernels do, :func:`onnxcam.kernels.reference.upsample`; a signal is a row
    of pixels to them, and a volume's slices are resized one by one, then along the third axis.

    Args:
        maps: float32 or float16, as many last axes as there are in ``axes``; what is not finite
            counts as 0.
        axes: where each axis lies on what was explained.

    Returns:
        ``[..., *S]`` float32, 0 outside the visible part.
    """
    if len(axes) == 1:
        rows = maps[..., None, :]
        return kernels().upsample(rows, View(Axis.whole(1, 1), axes[0]))[..., 0, :]
    slices = kernels().upsample(np.ascontiguousarray(maps), View(axes[-2], axes[-1]))
    return slices if len(axes) == 2 else _between(slices, axes[0])


def resized(maps: NDArray[Any], space: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize maps ``[B, *s]`` that cover an image to its lengths, with half-pixel centres."""
    lengths = zip(space, maps.shape[1:], strict=True)
    return upsample(np.ascontiguousarray(maps, np.float32), [Axis.whole(n, m) for n, m in lengths])


def _between(slices: NDArray[np.float32], axis: Axis) -> NDArray[np.float32]:
    """Interpolate slices ``[..., d, H, W]`` along their axis."""
    count = slices.shape[-3]
    place = (np.arange(axis.length) + 0.5) * axis.scale + axis.offset - 0.5
    place = np.clip(place, 0, max(count - 1, 0))
    low = np.minimum(place.astype(np.intp), max(count - 2, 0))
    high = np.minimum(low + 1, count - 1)
    share = (place - low).astype(np.float32)[:, None, None]
    found = np.take(slices, low, -3) * (1 - share) + np.take(slices, high, -3) * share
    hidden = np.ones(axis.length, np.bool_)
    hidden[axis.first : axis.last] = False
    found[..., hidden, :, :] = 0
    return np.asarray(found, np.float32)
