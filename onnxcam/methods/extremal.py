"""Extremal perturbation: the part of the image, of a given size, that keeps the score highest.

A mask ``m`` of the image's places is 1 where the image is kept; towards 0 it is blurred, the more
the less is kept. It is made of cells ``p`` by a smooth maximum, so that it is smooth, and the cells
are found by gradient ascent. Settings that have no parameter are those of TorchRay, the authors'
code.
"""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.methods.base import Runs, positive
from onnxcam.methods.registry import register

_LEVELS = 8  # of blur
_COLDNESS = 20  # of the smooth maximum
_RATE, _MOMENTUM = 0.01, 0.9
_AREA, _GROWTH = 300.0, 1.0035  # weight of the area, and its growth by a step


@register(
    "extremal-perturbation",
    "Fong et al. 2019, eq. 4, 6 and 8",
    space="input",
    needs="an image and a differentiable model",
    cost="3 to 4 for each step and target",
    drives=True,
)
def extremal_perturbation(
    runs: Runs,
    area: float = 0.1,
    steps: int = 800,
    cell: int = 7,
    sigma: float = 21.0,
    blur: float = 20.0,
) -> NDArray[np.float64]:
    """argmax_m y(blur(x, m)) - 300 mean((sort(m) - r)^2), r of area ones behind zeros.

    The image is mirrored left to right at every second step. As in TorchRay the mask reaches beyond
    the image by ``sigma`` pixels or more, and ``area`` is a share of all of it.
    """
    positive("extremal-perturbation", steps=steps, cell=cell)
    if not 0 < area < 1 or sigma <= 0 or blur <= 0:
        raise MethodError(
            "method 'extremal-perturbation': area must lie between 0 and 1, sigma and blur be "
            "above 0."
        )
    if runs.image.ndim != 3:
        raise MethodError(
            "extremal-perturbation masks images of two spatial axes; rise takes any number."
        )
    blurred = Blurred(runs.image, blur)
    masks = SmoothMasks(runs.image.shape[1:], int(cell), sigma)
    return np.stack(
        [_found(runs, t, blurred, masks, area, int(steps)) for t in range(len(runs.value))]
    )


def _found(
    runs: Runs, target: int, blurred: Blurred, masks: SmoothMasks, area: float, steps: int
) -> NDArray[np.float64]:
    """Return the mask ``[H, W]`` of one target."""
    cells, speed, weight = masks.first(), np.zeros(masks.cells), _AREA
    seen, wanted = np.zeros(runs.image.shape[1:]), np.ones(int(np.prod(masks.size)))
    wanted[: int(len(wanted) * (1 - area))] = 0
    for step in range(steps):
        whole = masks.made(cells)
        seen = whole[masks.inside]
        mirror = (Ellipsis, slice(None, None, -1 if step % 2 == 0 else 1))
        given = blurred.mixed(seen)[mirror].astype(runs.image.dtype)
        gradient = runs.gradient(given[None])[0, target][mirror]
        up = np.zeros(masks.size)
        up[masks.inside] = blurred.slope(seen, gradient)
        order = np.argsort(whole, axis=None, kind="stable")
        too_much = np.empty(len(order))
        too_much[order] = whole.reshape(-1)[order] - wanted
        up -= (2 * weight / len(order)) * too_much.reshape(masks.size)
        slope = masks.slope(up)
        speed = slope if step == 0 else _MOMENTUM * speed + (1 - _MOMENTUM) * slope
        cells = np.clip(cells + _RATE * speed, 0, 1)
        weight *= _GROWTH
    return seen


class Blurred:
    """An image, blurred at each place as much as a mask says."""

    def __init__(self, image: NDArray[Any], blur: float) -> None:
        """Blur an image ``[C, H, W]`` at several levels, the last of which is none."""
        shares = np.linspace(1, 0, _LEVELS)
        self._levels = np.stack([_blur(image.astype(np.float64), blur * s) for s in shares])

    def mixed(self, mask: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the image ``[C, H, W]`` under a mask ``[H, W]``, linear between levels."""
        low, high, share = self._between(mask)
        return low + share * (high - low)

    def slope(self, mask: NDArray[np.float64], gradient: NDArray[Any]) -> NDArray[np.float64]:
        """Return the gradient at the mask of that at the mixed image."""
        low, high, _ = self._between(mask)
        return np.asarray((_LEVELS - 1) * ((high - low) * gradient).sum(axis=0))

    def _between(
        self, mask: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        place = mask * (_LEVELS - 1)
        level = np.floor(place).astype(np.intp)
        rows, columns = np.indices(mask.shape)
        low = self._levels[level, :, rows, columns]
        high = self._levels[np.minimum(level + 1, _LEVELS - 1), :, rows, columns]
        return np.moveaxis(low, -1, 0), np.moveaxis(high, -1, 0), place - level


def _blur(image: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Blur an image, which is 0 outside, by a Gaussian of four standard deviations' reach."""
    if deviation == 0:
        return image
    reach = ceil(4 * deviation)
    total = np.exp(-np.square(np.arange(-reach, reach + 1) / deviation) / 2).sum()
    for axis in (1, 2):
        away = np.subtract.outer(*[np.arange(image.shape[axis])] * 2)
        kernel = np.exp(-np.square(away / deviation) / 2) * (np.abs(away) <= reach) / total
        image = np.moveaxis(np.moveaxis(image, axis, -1) @ kernel, -1, axis)
    return image


class SmoothMasks:
    """Masks made of cells, eq. 8: the smooth maximum of the cells around, the less the farther.

    Attributes:
        cells: how many there are along each axis.
        size: of a mask, which reaches beyond the image by ``sigma`` pixels or more.
        inside: where the image is in that.
    """

    def __init__(self, space: tuple[int, ...], cell: int, sigma: float) -> None:
        """Take the image's size, that of a cell, and how far a cell reaches, in pixels."""
        self._cell, reach = cell, ceil(sigma / cell)
        self._around, self._edge = 2 * reach + 3, 2 * reach + 1
        self.cells = tuple(ceil(length / cell) for length in space)
        self._places = tuple(n + 2 * reach for n in self.cells)
        self.size = tuple((n - 1) * cell + 1 for n in self._places)
        self.inside = tuple(slice(round(sigma), round(sigma) + length) for length in space)
        steps = (self._edge - np.arange(self._around)) * cell - sigma
        away = steps + np.arange(cell)[:, None]  # of a pixel of a cell from the cells around
        far = np.hypot(away[:, None, :, None], away[None, :, None, :]) / sigma
        shares = np.exp(-2 * np.square(np.maximum(far - 0.5, 0)))
        self._shares = shares.reshape(cell, cell, -1).astype(np.float32)
        self._slopes: dict[tuple[int, int], NDArray[np.float32]] = {}

    def first(self) -> NDArray[np.float64]:
        """Return the cells to begin with: all of the image is kept."""
        return np.ones(self.cells)

    def made(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mask of cells, and remember its slopes."""
        padded = np.pad(cells.astype(np.float32), self._edge)
        windows = sliding_window_view(padded, (self._around, self._around))
        near = windows.reshape(-1, self._around**2)
        found = np.empty([n * self._cell for n in self._places])
        for i, j in product(range(self._cell), repeat=2):
            values = near * self._shares[i, j]
            weights = np.exp(_COLDNESS * values)
            weights /= weights.sum(axis=1, keepdims=True)
            mean = np.einsum("pk,pk->p", weights, values)
            weights *= 1 + _COLDNESS * (values - mean[:, None])
            self._slopes[i, j] = weights * self._shares[i, j]
            found[i :: self._cell, j :: self._cell] = mean.reshape(self._places)
        return found[: self.size[0], : self.size[1]]

    def slope(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the gradient at the cells of that at the mask that was made last."""
        whole = np.zeros([n * self._cell for n in self._places], np.float32)
        whole[: self.size[0], : self.size[1]] = gradient
        total = np.zeros((int(np.prod(self._places)), self._around**2), np.float32)
        for (i, j), slopes in self._slopes.items():
            total += whole[i :: self._cell, j :: self._cell].reshape(-1, 1) * slopes
        rows, columns = self._places
        found = np.zeros([n + 2 * self._edge for n in self.cells])
        for k, (i, j) in enumerate(product(range(self._around), repeat=2)):
            found[i : i + rows, j : j + columns] += total[:, k].reshape(self._places)
        return found[self._edge : -self._edge, self._edge : -self._edge]
