"""Grad-CAM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import kernels_for

Floats = NDArray[np.float32]


class GradCam:
    """Gradient-weighted class activation mapping.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017: ``alpha_k = mean_S(dy/dA_k)`` (eq. 1), map ``sum_k alpha_k A_k``,
    rectified afterwards (eq. 2).

    The signed map needs only the gradient's sum over space, so the instrumented graph computes
    it by itself; :meth:`combine` is the same from whole gradients.
    """

    name = "grad-cam"

    @staticmethod
    def combine(activations: Floats, gradients: Floats) -> Floats:
        """Return signed maps ``[N, T, *S]``.

        Args:
            activations: ``[N, K, *S]`` float32, on the GPU or the host.
            gradients: ``[N, T, K, *S]`` float32, at the same place.
        """
        return kernels_for(activations).combine(activations, gradients)

    @staticmethod
    def rectify(signed: Floats) -> Floats:
        """Return the raw map: only what speaks for the target."""
        return np.maximum(signed, 0)
