"""Maps at the input: what each pixel and channel does to the score.

``x`` is the image as the network takes it, ``[N, C, H, W]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import kernels_for
from onnxcam.methods.base import Arrays, Runs, positive
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted


@register(
    "saliency",
    "Simonyan et al. 2013, section 3.1",
    space="input",
    needs="a differentiable model",
    cost="3 to 4",
)
def saliency(s: Site) -> Term:
    """dy/dx."""
    return s.gradient(s.input)


@register(
    "guided-backprop",
    "Springenberg et al. 2014, section 3.4",
    space="input",
    needs="rectifiers",
    cost="3 to 4",
)
def guided_backprop(s: Site, wide: int = 0) -> Term:
    """dy/dx, where rectifiers pass g (x > 0) (g > 0); wide=1: also LeakyRelu, gates, Gelu."""
    return s.gradient(s.input, "guided-wide" if wide else "guided")


@register(
    "deconvnet",
    "Zeiler and Fergus 2014, section 2.1",
    space="input",
    needs="rectifiers",
    cost="3 to 4",
)
def deconvnet(s: Site) -> Term:
    """dy/dx, where rectifiers pass g (g > 0)."""
    return s.gradient(s.input, "deconvnet")


def _fused(arrays: Arrays) -> NDArray[np.float32]:
    """Multiply the gradient at the input by the rectified map, resized to it."""
    return kernels_for(arrays["gradient"]).fuse(arrays["gradient"], arrays["raw"])


@register(
    "guided-grad-cam",
    "Selvaraju et al. 2017, section 3.2",
    space="input",
    needs="a layer of maps, rectifiers",
    cost="3 to 4",
    finish=_fused,
    on_device=True,
)
def guided_grad_cam(s: Site, wide: int = 0) -> dict[str, Term | Weighted]:
    """guided-backprop times the rectified grad-cam, resized to the image."""
    return {"gradient": guided_backprop(s, wide), "raw": s.weighted(s.pooled(), relu=True)}


@register(
    "deconv-grad-cam",
    "Selvaraju et al. 2017, section 3.2",
    space="input",
    needs="a layer of maps, rectifiers",
    cost="3 to 4",
    finish=_fused,
    on_device=True,
)
def deconv_grad_cam(s: Site) -> dict[str, Term | Weighted]:
    """Deconvnet times the rectified grad-cam, resized to the image."""
    return {"gradient": s.gradient(s.input, "deconvnet"), "raw": s.weighted(s.pooled(), relu=True)}


@register(
    "integrated-gradients",
    "Sundararajan et al. 2017, eq. 1",
    space="input",
    needs="a differentiable model",
    cost="3 to 4 for each step",
    drives=True,
)
def integrated_gradients(runs: Runs, steps: int = 50, baseline: float = 0.0) -> NDArray[np.float64]:
    """(x - b) times the mean gradient between b and x, by Gauss-Legendre quadrature."""
    positive("integrated-gradients", steps=steps)
    nodes, weights = np.polynomial.legendre.leggauss(int(steps))
    away = runs.image - np.asarray(baseline, runs.image.dtype)
    shares = ((nodes + 1) / 2).reshape(-1, 1, 1, 1).astype(runs.image.dtype)
    gradients = runs.gradient(baseline + shares * away)
    found: NDArray[np.float64] = away * np.tensordot(weights / 2, gradients, axes=1)
    return found


@register(
    "occlusion",
    "Zeiler and Fergus 2014, section 4.2",
    space="input",
    needs="nothing",
    cost="1 for each patch",
    drives=True,
)
def occlusion(
    runs: Runs, size: int = 32, stride: int = 16, value: float = 0.0
) -> NDArray[np.float64]:
    """How much the score drops when a patch is masked, averaged over the patches on a pixel."""
    positive("occlusion", size=size, stride=stride)
    _, height, width = runs.image.shape
    size, stride = int(size), int(stride)
    corners = [(y, x) for y in _starts(height, size, stride) for x in _starts(width, size, stride)]
    total = np.zeros((len(runs.value), height, width))
    count = np.zeros((height, width))
    masked = np.repeat(runs.image[None], len(corners), axis=0)
    for n, (y, x) in enumerate(corners):
        masked[n, :, y : y + size, x : x + size] = value
    drops = runs.value - runs.forward(masked)
    for drop, (y, x) in zip(drops, corners, strict=True):
        total[:, y : y + size, x : x + size] += drop[:, None, None]
        count[y : y + size, x : x + size] += 1
    return total / np.maximum(count, 1)


def _starts(length: int, size: int, stride: int) -> range:
    """Where patches start; the last one may reach over the edge."""
    steps = -(-max(length - size, 0) // stride)
    return range(0, steps * stride + 1, stride)
