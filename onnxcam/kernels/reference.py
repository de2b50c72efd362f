"""The definition of every kernel, in NumPy with float64 accumulation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels.view import Axis, View

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def combine(activations: Floats, gradients: Floats) -> Floats:
    """Return the signed Grad-CAM map, Selvaraju et al. 2017, eq. 1 and 2 before the ReLU.

    Args:
        activations: ``[N, K, *S]``.
        gradients: ``[N, T, K, *S]``.

    Returns:
        ``[N, T, *S]`` float32: ``sum_k mean_S(gradients_k) * activations_k``.
    """
    n, t, k = gradients.shape[:3]
    space = activations.shape[2:]
    places = int(np.prod(space, dtype=np.int64))
    a = activations.reshape(n, k, places).astype(np.float64)
    sums = gradients.reshape(n, t, k, places).sum(axis=3, dtype=np.float64)
    weights = sums / max(places, 1)
    maps: Floats = np.matmul(weights, a).reshape(n, t, *space).astype(np.float32)
    return maps


def upsample(raw: Floats, view: View) -> Floats:
    """Resize a map ``[h, w]`` bilinearly onto the photograph: ``[H, W]`` float32, 0 outside."""
    out = np.zeros(view.size, np.float32)
    if raw.size == 0:
        return out
    y0, y1, wy = _samples(view.rows, raw.shape[0])
    x0, x1, wx = _samples(view.columns, raw.shape[1])
    values = raw.astype(np.float64)
    rows = values[y0] * (1 - wy)[:, None] + values[y1] * wy[:, None]
    visible = rows[:, x0] * (1 - wx) + rows[:, x1] * wx
    out[view.rows.first : view.rows.last, view.columns.first : view.columns.last] = visible
    return out


def upsampled_max(raw: Floats, view: View) -> float:
    """Return the largest value that :func:`upsample` gives, at least 0."""
    return float(upsample(raw, view).max(initial=0.0))


def paint(
    photo: Bytes, raw: Floats, view: View, colours: Bytes, alpha: float, shade: float
) -> Bytes:
    """Colour a map and blend it over a photograph.

    The map is resized, divided by its maximum and looked up among the colours; the visible part
    becomes ``(1 - alpha) * photo + alpha * colour``, the rest ``shade * photo``.

    Args:
        photo: ``[H, W, 3]`` uint8.
        raw: ``[h, w]``, not negative.
        view: where the map lies on the photograph.
        colours: ``[256, 3]`` uint8.
        alpha: weight of the colour, 0 to 1.
        shade: brightness where the network did not look, 0 to 1.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    heat = upsample(raw, view)
    peak = heat.max(initial=0.0)
    levels = np.rint(heat * (255 / peak)).astype(np.intp) if peak > 0 else heat.astype(np.intp)
    blended = (1 - alpha) * photo.astype(np.float64) + alpha * colours[np.clip(levels, 0, 255)]
    out = shade * photo.astype(np.float64)
    seen = np.s_[view.rows.first : view.rows.last, view.columns.first : view.columns.last]
    if raw.size:
        out[seen] = blended[seen]
    return np.rint(out).astype(np.uint8)


def _samples(
    axis: Axis, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return for each visible pixel its two map elements and the weight of the second."""
    u = (np.arange(axis.first, axis.last) + 0.5) * axis.scale + axis.offset - 0.5
    u = np.clip(u, 0, length - 1)
    low = np.clip(u.astype(np.intp), 0, max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    return low, high, np.where(high > low, u - low, 0.0)
