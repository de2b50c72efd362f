"""The C kernels behind the same functions as :mod:`onnxcam.kernels.reference`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import _native  # type: ignore[attr-defined]
from onnxcam.kernels.view import Axis, View

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def combine(activations: Floats, gradients: Floats) -> Floats:
    """See :func:`onnxcam.kernels.reference.combine`."""
    n, t, k = gradients.shape[:3]
    space = activations.shape[2:]
    if gradients.shape != (n, t, k, *space) or activations.shape[:2] != (n, k):
        raise ValueError(
            f"gradients {gradients.shape} do not fit activations {activations.shape}: expected "
            "[N, T, K, *S] and [N, K, *S]."
        )
    places = int(np.prod(space, dtype=np.int64))
    out = np.zeros((n, t, places), np.float32)
    _native.combine(
        _floats(activations).reshape(n, k, places),
        _floats(gradients).reshape(n, t, k, places),
        out,
    )
    return out.reshape(n, t, *space)


def upsample(raw: Floats, view: View) -> Floats:
    """See :func:`onnxcam.kernels.reference.upsample`."""
    out = np.empty(view.size, np.float32)
    _native.upsample(_floats(raw), _axis(view.rows), _axis(view.columns), out)
    return out


def upsampled_max(raw: Floats, view: View) -> float:
    """See :func:`onnxcam.kernels.reference.upsampled_max`."""
    return float(_native.upsampled_max(_floats(raw), _axis(view.rows), _axis(view.columns)))


def paint(
    photo: Bytes, raw: Floats, view: View, colours: Bytes, alpha: float, shade: float
) -> Bytes:
    """See :func:`onnxcam.kernels.reference.paint`."""
    if photo.shape != (*view.size, 3) or colours.shape != (256, 3):
        raise ValueError(f"photo {photo.shape} or colours {colours.shape} do not fit {view.size}.")
    raw, rows, columns = _floats(raw), _axis(view.rows), _axis(view.columns)
    out = np.empty_like(photo, order="C")
    peak = _native.upsampled_max(raw, rows, columns)
    colours = np.ascontiguousarray(colours, np.uint8)
    photo = np.ascontiguousarray(photo, np.uint8)
    _native.paint(photo, raw, rows, columns, colours, alpha, shade, peak, out)
    return out


def _floats(array: NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _axis(axis: Axis) -> tuple[float, float, int, int]:
    if not 0 <= axis.first <= axis.last <= axis.length:
        raise ValueError(f"visible pixels {axis.first}..{axis.last} of {axis.length}")
    return axis.scale, axis.offset, axis.first, axis.last
