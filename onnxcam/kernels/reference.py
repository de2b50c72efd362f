"""The definition of every kernel, in NumPy with float64 accumulation.

What holds for all of them, here and in the other implementations:

* Maps, weights and gradients are float32 or float16; results are float32, pictures uint8.
  Arrays need not be contiguous, and any axis may have length 0.
* ``combine`` and ``combine_weighted`` propagate what is not finite: a NaN appears in every element
  that it is summed into, and the ReLU keeps it, so that a broken network stays visible.
* ``upsample``, ``upsampled_max``, ``fuse`` and ``paint`` read map elements that are not finite as
  0: no colour stands for them, and their neighbours keep their values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import shapes
from onnxcam.kernels.view import Axis, View

Floats = NDArray[np.float32]
Numbers = NDArray[np.float32] | NDArray[np.float16]
Bytes = NDArray[np.uint8]


def combine(activations: Numbers, gradients: Numbers, *, relu: bool = False) -> Floats:
    """Return the Grad-CAM map, Selvaraju et al. 2017, eq. 1 and 2.

    Args:
        activations: ``[N, K, *S]`` float32 or float16, one to three axes in ``S``.
        gradients: ``[N, T, K, *S]`` float32 or float16.
        relu: whether to apply the ReLU of eq. 2; without it the map is signed.

    Returns:
        ``[N, T, *S]`` float32: ``sum_k mean_S(gradients_k) * activations_k``, 0 if ``K`` is 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    n, t, *space = shapes.combined(activations.shape, gradients.shape, pixels=True)
    places = math.prod(space)
    sums = gradients.reshape(n, t, activations.shape[1], places).sum(axis=3, dtype=np.float64)
    return _weighted(activations, sums / max(places, 1), relu)


def combine_weighted(activations: Numbers, weights: Numbers, *, relu: bool = False) -> Floats:
    """Return the sum of activations weighted by channel or by pixel.

    Every class activation map has this form (Zhou et al. 2016, eq. 2, weights by channel). HiResCAM
    (Draelos and Carin 2020, eq. 4) and Layer-CAM (Jiang et al. 2021, eq. 5 and 6) have weights by
    pixel: the gradients themselves or their positive part.

    Args:
        activations: ``[N, K, *S]`` float32 or float16, one to three axes in ``S``.
        weights: ``[N, T, K]`` or ``[N, T, K, *S]``, float32 or float16.
        relu: whether to apply a ReLU to the sum.

    Returns:
        ``[N, T, *S]`` float32: ``sum_k weights_k * activations_k``, 0 if ``K`` is 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    shapes.combined(activations.shape, weights.shape)
    return _weighted(activations, weights.astype(np.float64), relu)


def upsample(raw: Numbers, view: View, *, normalise: bool = False) -> Floats:
    """Resize maps bilinearly (half-pixel centres) onto the photograph.

    Args:
        raw: ``[..., h, w]`` float32 or float16; elements that are not finite count as 0.
        view: where each map lies on its photograph of ``[H, W]`` pixels.
        normalise: whether to divide each map by its largest visible value, if that is positive;
            the maximum is then 1.

    Returns:
        ``[..., H, W]`` float32, 0 outside the visible part.

    Raises:
        ValueError: the view shows pixels that it does not have.
    """
    heat = _upsampled(raw, view)
    if normalise:
        peak = heat.max(axis=(-2, -1), keepdims=True, initial=0.0)
        heat /= np.where(peak > 0, peak, 1.0)
    return heat.astype(np.float32)


def upsampled_max(raw: Numbers, view: View) -> float:
    """Return the largest value that :func:`upsample` gives for a map ``[h, w]``, at least 0."""
    return float(np.float32(_upsampled(raw, view).max(initial=0.0)))


def fuse(guided: Numbers, raw: Numbers, view: View | None = None) -> Floats:
    """Multiply guided gradients by the resized map: Guided Grad-CAM.

    Selvaraju et al. 2017, section 3.2: the map is resized bilinearly (half-pixel centres) to the
    input tensor and multiplied with guided backpropagation, element by element.

    Args:
        guided: ``[..., C, H, W]`` float32 or float16, gradients at the input tensor.
        raw: ``[..., h, w]`` float32 or float16, the same leading axes; elements that are not
            finite count as 0.
        view: where the map lies on the ``H x W`` pixels; by default it covers them.

    Returns:
        ``[..., C, H, W]`` float32: ``guided * upsample(raw, view)``.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    heat = _upsampled(raw, shapes.fused(guided.shape, raw.shape, view))
    product: Floats = (guided.astype(np.float64) * heat[..., None, :, :]).astype(np.float32)
    return product


def paint(
    photo: Bytes, raw: Numbers, view: View, colours: Bytes, alpha: float, shade: float
) -> Bytes:
    """Colour a map and blend it over a photograph.

    The map is resized, divided by its maximum and looked up in the colour table. The visible part
    becomes ``(1 - w) * photo + w * colour`` with ``w`` of :func:`opacity`, the rest
    ``shade * photo``.

    Args:
        photo: ``[H, W, 3]`` uint8.
        raw: ``[h, w]`` float32 or float16; elements that are not finite count as 0. Values
            below 0 take the first colour.
        view: where the map lies on the photograph.
        colours: ``[256, 3]`` uint8.
        alpha: largest weight of the colour, 0 to 1.
        shade: brightness of the part that the network did not see, 0 to 1.

    Returns:
        ``[H, W, 3]`` uint8.

    Raises:
        ValueError: the shapes do not fit each other, or a weight is not within 0 and 1.
    """
    shapes.painted(photo.shape, raw.shape, view, colours.shape, alpha, shade)
    heat = _upsampled(raw, view)
    peak = heat.max(initial=0.0)
    levels = np.clip(np.rint(heat * (255 / peak) if peak > 0 else heat * 0.0), 0, 255)
    colour = colours[levels.astype(np.intp)]
    weight = opacity(levels / 255, alpha)[..., None]
    blended = (1 - weight) * photo.astype(np.float64) + weight * colour
    out = shade * photo.astype(np.float64)
    seen = np.s_[view.rows.first : view.rows.last, view.columns.first : view.columns.last]
    if raw.size:
        out[seen] = blended[seen]
    return np.rint(out).astype(np.uint8)


def opacity(heat: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Return a colour's weight where the heat is 0 to 1: ``alpha * min(1, 2 * heat)``.

    Cold places show the photograph as it is; from half of the peak on the weight is ``alpha``.
    """
    weight: NDArray[Any] = alpha * np.minimum(2 * heat, 1)
    return weight


def _weighted(activations: Numbers, weights: NDArray[np.float64], relu: bool) -> Floats:
    n, k, *space = activations.shape
    t = weights.shape[1]
    places = math.prod(space)
    a = activations.reshape(n, k, places).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if weights.ndim == 3:
            maps = np.matmul(weights, a)
        else:
            maps = np.einsum("ntkp,nkp->ntp", weights.reshape(n, t, k, places), a)
        if relu:
            maps = np.maximum(maps, 0.0)
        signed: Floats = maps.reshape(n, t, *space).astype(np.float32)
    return signed


def _upsampled(raw: Numbers, view: View) -> NDArray[np.float64]:
    out = np.zeros(shapes.upsampled(raw.shape, view))
    if raw.size == 0:
        return out
    y0, y1, wy = _samples(view.rows, raw.shape[-2])
    x0, x1, wx = _samples(view.columns, raw.shape[-1])
    values = np.where(np.isfinite(raw), raw, 0).astype(np.float64)
    rows = values[..., y0, :] * (1 - wy)[:, None] + values[..., y1, :] * wy[:, None]
    visible = rows[..., x0] * (1 - wx) + rows[..., x1] * wx
    out[..., view.rows.first : view.rows.last, view.columns.first : view.columns.last] = visible
    return out


def _samples(
    axis: Axis, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return, for each visible pixel, its two map elements and the weight of the second."""
    u = (np.arange(axis.first, axis.last) + 0.5) * axis.scale + axis.offset - 0.5
    u = np.clip(u, 0, length - 1)
    low = np.clip(u.astype(np.intp), 0, max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    return low, high, np.where(high > low, u - low, 0.0)
