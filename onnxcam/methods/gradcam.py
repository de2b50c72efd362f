"""Grad-CAM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import kernels


class GradCam:
    """Gradient-weighted class activation mapping.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017: ``alpha_k = mean_S(dy/dA_k)`` (eq. 1), map ``sum_k alpha_k A_k``,
    rectified afterwards (eq. 2).
    """

    name = "grad-cam"

    def signed(
        self, activations: NDArray[np.float32], gradients: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return maps before the ReLU.

        Args:
            activations: ``[N, K, *S]`` float32.
            gradients: ``[N, T, K, *S]`` float32.

        Returns:
            ``[N, T, *S]`` float32.
        """
        return kernels().combine(activations, gradients)
