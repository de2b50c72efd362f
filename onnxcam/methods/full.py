"""FullGrad: what the image and every bias contribute to the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels.space import resized
from onnxcam.methods.base import Arrays
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Bias, Site

_LEAST = 1e-7  # added to denominators, as in pytorch-grad-cam


def _summed(arrays: Arrays) -> NDArray[np.float32]:
    """Scale the sizes at the image as those of biases are, resize all, and add, ``[N, T, *S]``.

    They are above 0 everywhere, so the map begins at its least value, as pytorch-grad-cam's does.
    """
    count, targets, _, *space = arrays["image"].shape
    total = np.zeros((count * targets, *space), np.float32)
    for key, found in arrays.items():
        sizes = found.reshape(count * targets, *found.shape[2:])
        if key == "image":
            sizes = np.abs(sizes)
            axes = tuple(range(2, sizes.ndim))
            sizes = sizes - sizes.min(axis=axes, keepdims=True)
            sizes = (sizes / (sizes.max(axis=axes, keepdims=True) + _LEAST)).sum(axis=1)
        total += resized(sizes, tuple(space))
    least = total.min(axis=tuple(range(1, total.ndim)), keepdims=True)
    return np.asarray((total - least).reshape(count, targets, *space))


def _scaled(s: Site, bias: Bias) -> Term:
    """Return a bias's sizes, each channel scaled to 0..1, summed over channels, ``[T, N, *S]``."""
    channel, axes = -bias.rank + 1, list(range(2 - bias.rank, 0))
    if bias.axis != 1:
        channel, axes = -1, list(range(1 - bias.rank, -1))
    sizes = abs(bias.contribution)
    sizes = sizes - s.term(s.b.reduced("ReduceMin", sizes.value, axes, keepdims=True))
    largest = s.term(s.b.reduced("ReduceMax", sizes.value, axes, keepdims=True))
    return s.term(s.b.sum((sizes / (largest + _LEAST)).value, [channel]))


@register(
    "full-grad",
    "Srinivas and Fleuret 2019, eq. 3 and 9",
    space="input",
    needs="a network of convolutions",
    cost="4 to 8",
    finish=_summed,
)
def full_grad(s: Site) -> dict[str, Term]:
    """|x G_x| and |b G_b| of all biases of maps, channels scaled to 0..1, resized and added."""
    biases = s.biases()
    found = {"image": s.gradient(s.input) * s.input}
    image = len(s.input.value.shape or ())
    for n, bias in enumerate(biases):
        if bias.rank > 2 and bias.axis in (1, bias.rank - 1):
            if bias.rank != image:
                raise MethodError(
                    "method 'full-grad': the network has biases of tokens or groups, which have no "
                    "place in the image. input-x-gradient and attn-lrp need none."
                )
            found[f"bias {n}"] = _scaled(s, bias)
    return found
