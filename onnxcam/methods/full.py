"""FullGrad: what the image and every bias contribute to the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels.space import resized
from onnxcam.methods.base import Arrays
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site

_LEAST = 1e-7  # added to denominators, as in pytorch-grad-cam


def _summed(arrays: Arrays) -> NDArray[np.float32]:
    """Scale the sizes of each channel to 0..1, resize them, and add, ``[N, T, *S]``.

    They are above 0 everywhere, so the map begins at its least value, as pytorch-grad-cam's does.
    """
    count, targets, _, *space = arrays["image"].shape
    total = np.zeros((count * targets, *space), np.float32)
    for key, found in arrays.items():
        sizes = np.abs(found.reshape(count * targets, *found.shape[2:]))
        if key.endswith("last") and sizes.shape[1:] != arrays["image"].shape[2:]:
            sizes = np.moveaxis(sizes, -1, 1)
        axes = tuple(range(2, sizes.ndim))
        sizes = sizes - sizes.min(axis=axes, keepdims=True)
        sizes /= sizes.max(axis=axes, keepdims=True) + _LEAST
        total += resized(sizes.sum(axis=1), tuple(space))
    least = total.min(axis=tuple(range(1, total.ndim)), keepdims=True)
    return np.asarray((total - least).reshape(count, targets, *space))


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
    for n, (contribution, rank, axis) in enumerate(biases):
        if rank > 2 and axis in (1, rank - 1):
            found[f"bias {n}{'' if axis == 1 else ' last'}"] = contribution
    return found
