"""What goes around a class activation map: ``WRAPPER@METHOD``, or ``WRAPPER`` around grad-cam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels.space import resized
from onnxcam.methods.base import Method, Runs
from onnxcam.methods.cams import grad_cam, grad_cam_plus_plus
from onnxcam.methods.others import principal
from onnxcam.methods.registry import METHODS, WRAPPERS, register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted

_FACTORS = (0.9, 1.0, 1.1)  # of pytorch-grad-cam, by which the prepared image is multiplied


def _products(s: Site, made: object) -> dict[str, Term]:
    """Return the weighted activations ``[T, N, K, *S]`` before they are summed.

    Raises:
        MethodError: what was made is no such sum.
    """
    if not hasattr(made, "weights") or not hasattr(made, "pixels"):
        raise MethodError("it smooths a weighted sum of activations; grad-cam and layer-cam are.")
    sums = cast("Weighted", made)
    weights = sums.weights if sums.pixels else s.over_space(sums.weights)
    return {"products": weights * sums.activations}


@register(
    "eigen-smoothing",
    "pytorch-grad-cam, eigen_smooth; around another as eigen-smoothing@layer-cam",
    finish=principal,
)  # fmt: skip
def eigen_smoothing(s: Site) -> dict[str, Term]:
    """v^T (w_k A_k), with v the first principal component of the weighted activations."""
    return _products(s, grad_cam(s))


def _eigen(method: Method) -> Method:
    write = method.write
    assert write is not None

    @wraps(write)
    def products(s: Site, **parameters: float) -> dict[str, Term]:
        return _products(s, write(s, **parameters))

    return replace(method, write=products, finish=principal, on_device=False, proportional=False)


@register(
    "augmentation-smoothing",
    "pytorch-grad-cam, aug_smooth; around another as augmentation-smoothing@layer-cam",
    cost="6", drives=True,
)  # fmt: skip
def augmentation_smoothing(runs: Runs) -> NDArray[np.float32]:
    """The mean of maps, scaled to 0..1, of the image and its mirror image times 0.9, 1 and 1.1."""
    return _augmented(METHODS["grad-cam"], runs)


def _augmented(method: Method, runs: Runs) -> NDArray[np.float32]:
    image = runs.image
    space = image.shape[1:]
    mirrors = (False, True) if len(space) > 1 else (False,)
    ways = list(product(mirrors, _FACTORS))
    given = np.stack([(image[..., ::-1] if m else image) * f for m, f in ways])
    maps = method.finished(runs.given(method, given.astype(image.dtype)))  # [6, T, *s]
    count, targets = maps.shape[:2]
    found = heatmaps(maps.reshape(count * targets, *maps.shape[2:]), space)
    found = found.reshape(count, targets, *found.shape[1:])
    turned = [one[..., ::-1] if m else one for one, (m, _) in zip(found, ways, strict=True)]
    return np.asarray(np.mean(turned, axis=0), np.float32)


def heatmaps(maps: NDArray[Any], space: tuple[int, ...]) -> NDArray[np.float32]:
    """Return maps ``[B, *s]`` as pytorch-grad-cam gives them: of 0..1, ``[B, *S]``.

    Maps of another number of axes than the image keep their size.
    """
    found = scaled(np.maximum(maps, 0))
    return scaled(resized(found, space)) if found.ndim - 1 == len(space) else found


def scaled(maps: NDArray[Any]) -> NDArray[np.float32]:
    """Bring maps ``[B, *S]`` to 0..1."""
    axes = tuple(range(1, maps.ndim))
    less = maps - maps.min(axis=axes, keepdims=True)
    return np.asarray(less / (less.max(axis=axes, keepdims=True) + 1e-7), np.float32)


def _augmentation(method: Method) -> Method:
    return driven(method, partial(_augmented, method), "6")


def driven(method: Method, drive: Callable[..., Any], cost: str) -> Method:
    """Return a method whose maps are those of a function that drives many runs of it."""
    return replace(
        method, write=None, finish=None, drive=drive, cost=cost, on_device=False, proportional=False
    )


@register(
    "refine-cam",
    "Domeniconi et al. 2026; around another as refine-cam@layer-cam",
    needs="several layers of maps", proportional=True, joins="product",
)  # fmt: skip
def refine_cam(s: Site) -> Weighted:
    """The product of the maps of grad-cam++ at several layers, rectified and scaled to 0..1."""
    return cast("Weighted", grad_cam_plus_plus(s))


def _refined(method: Method) -> Method:
    return replace(method, joins="product")


WRAPPERS["refine-cam"] = _refined
WRAPPERS["eigen-smoothing"] = _eigen
WRAPPERS["augmentation-smoothing"] = _augmentation
