"""The array functions that finish an explanation, in three implementations.

``reference`` (NumPy) is the definition; ``native`` (C) does the same faster on the CPU, and
``cuda`` (Numba CUDA) on the GPU. Arrays on the GPU go to ``cuda``, all others to ``native`` if it
was built, else to ``reference``; ``ONNXCAM_KERNELS`` chooses between these two.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import KernelsError
from onnxcam.kernels.view import Axis, View

__all__ = ["Axis", "Kernels", "View", "is_on_device", "kernels", "kernels_for", "kernels_name"]

Floats = NDArray[np.float32]
Numbers = NDArray[np.float32] | NDArray[np.float16]
Bytes = NDArray[np.uint8]


class Kernels(Protocol):
    """What every implementation offers; see :mod:`onnxcam.kernels.reference`."""

    def combine(self, activations: Numbers, gradients: Numbers, *, relu: bool = False) -> Floats:
        """Weight the activations by the pooled gradients and sum them."""

    def combine_weighted(
        self, activations: Numbers, weights: Numbers, *, relu: bool = False
    ) -> Floats:
        """Sum the activations, weighted by channel or by pixel."""

    def upsample(self, raw: Numbers, view: View, *, normalise: bool = False) -> Floats:
        """Resize maps onto the photograph."""

    def upsampled_max(self, raw: Numbers, view: View) -> float:
        """Return the largest value that ``upsample`` would give."""

    def fuse(self, guided: Numbers, raw: Numbers, view: View | None = None) -> Floats:
        """Multiply guided gradients by the resized map."""

    def paint(
        self, photo: Bytes, raw: Numbers, view: View, colours: Bytes, alpha: float, shade: float
    ) -> Bytes:
        """Colour a map and blend it over the photograph."""


@cache
def kernels() -> Kernels:
    """Return the implementation for arrays on the host."""
    wanted = os.environ.get("ONNXCAM_KERNELS", "")
    if wanted not in ("", "native", "reference"):
        raise KernelsError(f"ONNXCAM_KERNELS={wanted}: choose native or reference.")
    if wanted != "reference":
        try:
            from onnxcam.kernels import native

            return native
        except ImportError as error:
            if wanted == "native":
                raise KernelsError(
                    "ONNXCAM_KERNELS=native, but the C kernels are not built: 'onnxcam doctor' "
                    "says how to get them."
                ) from error
    from onnxcam.kernels import reference

    return reference


def is_on_device(array: Any) -> bool:
    """Whether an array lies on the GPU (or what stands for it in Numba's simulator)."""
    marks = ("__cuda_array_interface__", "__cuda_ndarray__")
    return not isinstance(array, np.ndarray) and any(hasattr(array, mark) for mark in marks)


def kernels_for(array: Any) -> Kernels:
    """Return the implementation for an array, on the GPU or the host.

    Raises:
        KernelsError: the array is on the GPU and numba-cuda is not installed.
    """
    if not is_on_device(array):
        return kernels()
    from onnxcam.kernels import cuda

    return cuda


def kernels_name() -> str:
    """Return ``"native"`` or ``"reference"``."""
    return kernels().__name__.rpartition(".")[2]  # type: ignore[attr-defined, no-any-return]
