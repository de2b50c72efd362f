"""The functions of :mod:`onnxcam.kernels.reference`, in C.

They compute in float32 and accumulate long sums in float64. Contiguous float32 and float16 arrays
are read in place, others are copied. Large work is split among ``threads`` threads: by default
``ONNXCAM_THREADS``, else as many as this process may run on, at most eight. The result does not
depend on their number.
"""

from __future__ import annotations

import math
import os
from functools import cache

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import KernelsError
from onnxcam.kernels import _native, shapes  # type: ignore[attr-defined]
from onnxcam.kernels.view import Axis, View

Floats = NDArray[np.float32]
Numbers = NDArray[np.float32] | NDArray[np.float16]
Bytes = NDArray[np.uint8]

_MOST_THREADS = 8  # the kernels are bound by memory, which more threads do not speed up


def combine(
    activations: Numbers, gradients: Numbers, *, relu: bool = False, threads: int | None = None
) -> Floats:
    """See :func:`onnxcam.kernels.reference.combine`."""
    n, t, *space = shapes.combined(activations.shape, gradients.shape, pixels=True)
    k, places = activations.shape[1], math.prod(space)
    out = np.empty((n, t, places), np.float32)
    _native.combine(
        _numbers(activations).reshape(n, k, places),
        _numbers(gradients).reshape(n, t, k, places),
        np.empty((n, t, k), np.float32),
        relu,
        out,
        _threads(threads),
    )
    return out.reshape(n, t, *space)


def combine_weighted(
    activations: Numbers, weights: Numbers, *, relu: bool = False, threads: int | None = None
) -> Floats:
    """See :func:`onnxcam.kernels.reference.combine_weighted`."""
    n, t, *space = shapes.combined(activations.shape, weights.shape)
    k, places = activations.shape[1], math.prod(space)
    out = np.empty((n, t, places), np.float32)
    a = _numbers(activations).reshape(n, k, places)
    if weights.ndim == 3:
        _native.combine_channels(a, _floats(weights), relu, out, _threads(threads))
    else:
        pixels = _numbers(weights).reshape(n, t, k, places)
        _native.combine_pixels(a, pixels, relu, out, _threads(threads))
    return out.reshape(n, t, *space)


def upsample(
    raw: Numbers, view: View, *, normalise: bool = False, threads: int | None = None
) -> Floats:
    """See :func:`onnxcam.kernels.reference.upsample`."""
    out = np.empty(shapes.upsampled(raw.shape, view), np.float32)
    maps = _maps(raw)
    _native.upsample(
        maps, *_axes(view), normalise, out.reshape(len(maps), *view.size), _threads(threads)
    )
    return out


def upsampled_max(raw: Numbers, view: View) -> float:
    """See :func:`onnxcam.kernels.reference.upsampled_max`."""
    shapes.upsampled(raw.shape, view)
    return float(_native.upsampled_max(_maps(raw), *_axes(view)))


def fuse(
    guided: Numbers, raw: Numbers, view: View | None = None, *, threads: int | None = None
) -> Floats:
    """See :func:`onnxcam.kernels.reference.fuse`."""
    view = shapes.fused(guided.shape, raw.shape, view)
    out = np.empty(guided.shape, np.float32)
    maps = _maps(raw)
    four = (len(maps), *guided.shape[-3:])
    _native.fuse(
        _numbers(guided).reshape(four), maps, *_axes(view), out.reshape(four), _threads(threads)
    )
    return out


def paint(
    photo: Bytes,
    raw: Numbers,
    view: View,
    colours: Bytes,
    alpha: float,
    shade: float,
    *,
    threads: int | None = None,
) -> Bytes:
    """See :func:`onnxcam.kernels.reference.paint`."""
    shapes.painted(photo.shape, raw.shape, view, colours.shape, alpha, shade)
    out = np.empty(photo.shape, np.uint8)
    colours = np.ascontiguousarray(colours, np.uint8)
    photo = np.ascontiguousarray(photo, np.uint8)
    _native.paint(photo, _maps(raw), *_axes(view), colours, alpha, shade, out, _threads(threads))
    return out


def _numbers(array: Numbers) -> Numbers:
    """Return the array as contiguous float32 or float16, which the kernels read."""
    if array.dtype == np.float16:
        return np.ascontiguousarray(array, np.float16)
    return np.ascontiguousarray(array, np.float32)


def _floats(array: Numbers) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _maps(raw: Numbers) -> Floats:
    return _floats(raw).reshape(math.prod(raw.shape[:-2]), *raw.shape[-2:])


def _axes(view: View) -> tuple[tuple[float, float, int, int], tuple[float, float, int, int]]:
    return _axis(view.rows), _axis(view.columns)


def _axis(axis: Axis) -> tuple[float, float, int, int]:
    return axis.scale, axis.offset, axis.first, axis.last


def _threads(asked: int | None) -> int:
    if asked is not None:
        return max(asked, 1)
    wanted = os.environ.get("ONNXCAM_THREADS", "")
    if not wanted:
        return _processors()
    if not wanted.isdecimal() or int(wanted) < 1:
        raise KernelsError(f"ONNXCAM_THREADS={wanted}: give a number of threads, 1 or more.")
    return int(wanted)


@cache
def _processors() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        count = os.cpu_count() or 1
    return min(count, _MOST_THREADS)
