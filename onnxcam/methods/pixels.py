"""Maps at the input: what each pixel and channel does to the score.

``x`` is the image as the network takes it, with channels first: ``[N, C, H, W]``, of signals
``[N, C, W]``, of volumes ``[N, C, D, H, W]``.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels import kernels_for
from onnxcam.kernels.space import upsample
from onnxcam.kernels.view import Axis
from onnxcam.methods.base import Arrays, Runs, chunks, positive
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted


@register(
    "saliency",
    "Simonyan et al. 2013, section 3.1",
    space="input",
    proportional=True,
    needs="a differentiable model",
    cost="3 to 4",
)
def saliency(s: Site) -> Term:
    """dy/dx."""
    return s.gradient(s.input)


@register(
    "input-x-gradient",
    "Shrikumar et al. 2016, section 1",
    space="input",
    proportional=True,
    needs="a differentiable model",
    cost="3 to 4",
)
def input_x_gradient(s: Site) -> Term:
    """(dy/dx) x, element by element."""
    return s.gradient(s.input) * s.input


@register(
    "guided-backprop",
    "Springenberg et al. 2014, section 3.4",
    space="input",
    proportional=True,
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
    proportional=True,
    needs="rectifiers",
    cost="3 to 4",
)
def deconvnet(s: Site) -> Term:
    """dy/dx, where rectifiers pass g (g > 0)."""
    return s.gradient(s.input, "deconvnet")


def _fused(arrays: Arrays) -> NDArray[np.float32]:
    """Multiply the gradient at the input by the rectified map, resized to it.

    Raises:
        MethodError: the layer's places are not the input's.
    """
    gradient, raw = arrays["gradient"], arrays["raw"]
    axes = gradient.ndim - 3
    if raw.ndim - 2 != axes:
        raise MethodError(
            f"Guided Grad-CAM multiplies a map of {raw.ndim - 2} spatial axes with an input of "
            f"{axes}; choose a method of the layer or of the input alone ('onnxcam methods' lists "
            "them)."
        )
    if axes == 2:
        return kernels_for(gradient).fuse(gradient, raw)
    whole = [Axis.whole(n, m) for n, m in zip(gradient.shape[3:], raw.shape[2:], strict=True)]
    return np.asarray(gradient * upsample(raw, whole)[:, :, None], np.float32)


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
    proportional=True,
    needs="a differentiable model",
    cost="3 to 4 for each step",
    drives=True,
)
def integrated_gradients(runs: Runs, steps: int = 50, baseline: float = 0.0) -> NDArray[np.float64]:
    """(x - b) times the mean gradient between b and x, by Gauss-Legendre quadrature."""
    positive("integrated-gradients", steps=steps)
    nodes, weights = np.polynomial.legendre.leggauss(int(steps))
    away = runs.image - np.asarray(baseline, runs.image.dtype)
    shares = ((nodes + 1) / 2).reshape(-1, *[1] * runs.image.ndim).astype(runs.image.dtype)
    mean = np.zeros(1)
    for start, stop in chunks(int(steps), runs.batch):
        gradients = runs.gradient(baseline + shares[start:stop] * away)
        mean = mean + np.tensordot(weights[start:stop] / 2, gradients, axes=1)
    return np.asarray(away * mean)


@register(
    "occlusion",
    "Zeiler and Fergus 2014, section 4.2",
    space="input",
    proportional=True,
    needs="nothing",
    cost="1 for each patch",
    drives=True,
)
def occlusion(
    runs: Runs, size: int = 32, stride: int = 16, value: float = 0.0
) -> NDArray[np.float64]:
    """How much the score drops when a patch is masked, averaged over the patches on a pixel."""
    positive("occlusion", size=size, stride=stride)
    space, size = runs.image.shape[1:], int(size)
    starts = [_starts(length, size, int(stride)) for length in space]
    patches: list[Any] = [tuple(slice(c, c + size) for c in corner) for corner in product(*starts)]
    total, count = np.zeros((len(runs.value), *space)), np.zeros(space)
    for start, stop in chunks(len(patches), runs.batch):
        some = patches[start:stop]
        masked = np.repeat(runs.image[None], len(some), axis=0)
        for n, patch in enumerate(some):
            masked[(n, slice(None), *patch)] = value
        drops = runs.value - runs.forward(masked)
        for drop, patch in zip(drops, some, strict=True):
            total[(slice(None), *patch)] += drop.reshape(-1, *[1] * len(space))
            count[patch] += 1
    return total / np.maximum(count, 1)


def _starts(length: int, size: int, stride: int) -> range:
    """Where patches start; the last one may reach over the edge."""
    steps = -(-max(length - size, 0) // stride)
    return range(0, steps * stride + 1, stride)
