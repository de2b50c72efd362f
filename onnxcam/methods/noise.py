"""Averages over noisy copies of the image, drawn anew from the same seed for each image.

``x`` is the image as the network takes it, with channels first, ``[C, *S]``; noise is normal, its
standard deviation a share of the image's range. Only as many copies as one run takes are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import kernels_for
from onnxcam.methods.base import Method, Runs, chunks, positive
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site

_COST = "3 to 4 for each sample"


def noisy(runs: Runs, samples: int, noise: float, seed: int) -> Iterator[NDArray[Any]]:
    """Yield noisy copies ``[B, C, *S]`` of the image, as many as one run takes, until all are."""
    image, rng = runs.image, np.random.default_rng(int(seed))
    deviation = noise * float(image.max() - image.min())
    for start, stop in chunks(int(samples), runs.batch):
        drawn = rng.standard_normal((stop - start, *image.shape))
        drawn *= deviation  # in place, which takes half the time
        drawn += image
        yield drawn.astype(image.dtype)


def _moments(
    runs: Runs, samples: int, noise: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of the gradient and of its square over noisy copies, ``[T, C, *S]``."""
    positive("smooth-grad", samples=samples)
    first = second = np.zeros(1)
    for images in noisy(runs, samples, noise, seed):
        gradients = runs.gradient(images)
        first = first + gradients.sum(axis=0)
        second = second + np.square(gradients).sum(axis=0)
    return first / samples, second / samples


@register(
    "smooth-grad",
    "Smilkov et al. 2017, section 3",
    space="input",
    proportional=True,
    needs="a differentiable model",
    cost=_COST,
    drives=True,
)
def smooth_grad(
    runs: Runs, samples: int = 50, noise: float = 0.15, seed: int = 0
) -> NDArray[np.float64]:
    """The mean of dy/dx over noisy copies of the image."""
    return _moments(runs, samples, noise, seed)[0]


@register(
    "smooth-grad-squared",
    "Hooker et al. 2019, section 3",
    space="input",
    needs="a differentiable model",
    cost=_COST,
    drives=True,
)
def smooth_grad_squared(
    runs: Runs, samples: int = 50, noise: float = 0.15, seed: int = 0
) -> NDArray[np.float64]:
    """The mean of (dy/dx)^2 over noisy copies of the image."""
    return _moments(runs, samples, noise, seed)[1]


@register(
    "var-grad",
    "Adebayo et al. 2018, section 3",
    space="input",
    needs="a differentiable model",
    cost=_COST,
    drives=True,
)
def var_grad(
    runs: Runs, samples: int = 50, noise: float = 0.15, seed: int = 0
) -> NDArray[np.float64]:
    """The variance of dy/dx over noisy copies of the image."""
    first, second = _moments(runs, samples, noise, seed)
    return np.maximum(second - np.square(first), 0)


@register(
    "gradient-shap",
    "Lundberg and Lee 2017; Erion et al. 2021, eq. 3",
    space="input",
    proportional=True,
    needs="a differentiable model",
    cost=_COST,
    drives=True,
)
def gradient_shap(
    runs: Runs, samples: int = 50, baseline: float = 0.0, noise: float = 0.1, seed: int = 0
) -> NDArray[np.float64]:
    """The mean of (z - b) dy/dx at b + r (z - b), over noisy copies z and r uniform in 0..1."""
    positive("gradient-shap", samples=samples)
    shares = np.random.default_rng([int(seed), 1]).uniform(size=int(samples))
    total, done = np.zeros(1), 0
    for images in noisy(runs, samples, noise, seed):
        share = shares[done : done + len(images)].reshape(-1, *[1] * runs.image.ndim)
        away = images - np.asarray(baseline, images.dtype)
        gradients = runs.gradient((baseline + share * away).astype(images.dtype))
        total = total + (away[:, None] * gradients).sum(axis=0)
        done += len(images)
    return total / samples


def _layer(s: Site) -> dict[str, Term]:
    return {"gradient": s.gradient()}


_GRADIENT = Method("layer-gradient", "", write=_layer, builtin=True)


@register(
    "smooth-grad-cam++",
    "Omeiza et al. 2019, eq. 8-10",
    proportional=True,
    cost="1 for each sample, and 1",
    drives=True,
)
def smooth_grad_cam_plus_plus(
    runs: Runs, samples: int = 10, noise: float = 0.1, seed: int = 0
) -> NDArray[np.float32]:
    """grad-cam++ with G, G^2 and G^3 averaged over noisy copies of the image.

    The denominator gets 1e-6 added, as that of grad-cam++.
    """
    positive("smooth-grad-cam++", samples=samples)
    powers = [np.zeros(1)] * 3
    for images in noisy(runs, samples, noise, seed):
        g = runs.given(_GRADIENT, images)["gradient"].astype(np.float64)
        for p, power in enumerate(accumulate([g] * 3, np.multiply)):
            powers[p] = powers[p] + power.sum(axis=0) / samples
    a = runs.activations
    first, second, third = powers  # [T, K, *S]
    space = tuple(range(2, first.ndim))
    total = a.sum(axis=tuple(range(1, a.ndim)), keepdims=True, dtype=np.float64)
    share = second / (2 * second + total * third + 1e-6)
    weights = (share * np.maximum(first, 0)).sum(axis=space)[None].astype(np.float32)
    single = np.ascontiguousarray(a[None], np.float32)
    return np.asarray(kernels_for(single).combine_weighted(single, weights)[0])
