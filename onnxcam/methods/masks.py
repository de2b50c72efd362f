"""Maps made of how the score changes when parts of the image, or of a layer, are hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels import kernels_for
from onnxcam.kernels.space import resized
from onnxcam.methods.base import Runs, chunks, positive
from onnxcam.methods.registry import register


@register(
    "score-cam",
    "Wang et al. 2020, eq. 5-7",
    cost="1 for each channel, and 1",
    drives=True,
)
def score_cam(runs: Runs) -> NDArray[np.float32]:
    """sum_k w_k A_k, w = softmax_k(y of the image times A_k, resized and scaled to 0..1)."""
    return _by_scores("score-cam", runs, lambda _, masks: [masks])


@register(
    "ss-cam",
    "Wang et al. 2020 (SS-CAM)",
    cost="35 for each channel, and 1",
    drives=True,
)
def ss_cam(runs: Runs, samples: int = 35, noise: float = 2.0, seed: int = 0) -> NDArray[np.float32]:
    """score-cam with y averaged over masks to which normal noise is added.

    The noise of a channel is the same whatever the number of images in one run.
    """
    positive("ss-cam", samples=samples)

    def ways(first: int, masks: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        channels = [np.random.default_rng([int(seed), first + n]) for n in range(len(masks))]
        for _ in range(int(samples)):
            drawn = [rng.standard_normal(masks.shape[1:], np.float32) for rng in channels]
            yield masks + np.float32(noise) * np.stack(drawn)

    return _by_scores("ss-cam", runs, ways)


@register(
    "is-cam",
    "Naidu et al. 2020",
    cost="10 for each channel, and 1",
    drives=True,
)
def is_cam(runs: Runs, steps: int = 10) -> NDArray[np.float32]:
    """score-cam with y averaged over masks times 1/n, 2/n, ..., 1 in n steps."""
    positive("is-cam", steps=steps)
    shares = np.arange(1, int(steps) + 1, dtype=np.float32) / np.float32(steps)
    return _by_scores("is-cam", runs, lambda _, masks: (masks * share for share in shares))


def _by_scores(
    method: str,
    runs: Runs,
    ways: Callable[[int, NDArray[np.float32]], Iterable[NDArray[np.float32]]],
) -> NDArray[np.float32]:
    """Return sum_k w_k A_k, w = softmax_k of the mean score of the image under mask k.

    Args:
        method: who asks.
        runs: gives scores.
        ways: returns what the image is multiplied with, of the number of the first channel and of
            masks ``[B, *S]``; the scores of several are averaged.

    Raises:
        MethodError: the layer's places are not the image's.
    """
    a, image = runs.activations, runs.image
    if a.ndim != image.ndim:
        raise MethodError(
            f"{method} masks the image with maps of its layer, which have {a.ndim - 1} spatial "
            f"axes, the image {image.ndim - 1}. ablation-cam masks the layer itself."
        )
    found = []
    for start, stop in chunks(len(a), runs.batch):
        masks = resized(a[start:stop], image.shape[1:])
        axes = tuple(range(1, masks.ndim))
        masks -= masks.min(axis=axes, keepdims=True)
        masks /= masks.max(axis=axes, keepdims=True) + 1e-8
        scores = [
            runs.forward((image * given[:, None]).astype(image.dtype, copy=False))
            for given in ways(start, masks)
        ]
        found.append(np.mean(scores, axis=0))
    y = np.concatenate(found)  # [K, T]
    weights = np.exp(y - y.max(axis=0))
    weights /= weights.sum(axis=0)
    single = np.ascontiguousarray(a[None], np.float32)
    given = np.ascontiguousarray(weights.T[None], np.float32)
    return np.asarray(kernels_for(single).combine_weighted(single, given)[0])


@register(
    "recipro-cam",
    "Byun and Lee 2022, eq. 3-5",
    cost="1, and a part of 1 for each place of the layer",
    drives=True,
)
def recipro_cam(runs: Runs, gaussian: int = 1) -> NDArray[np.float64]:
    """The score with the layer left at one place alone, less the least; gaussian=0: sharp places.

    What is left is a place and, halved for each step along an axis, its neighbours.
    """
    a = runs.activations
    space, places = a.shape[1:], int(np.prod(a.shape[1:]))
    near = [_near(length, gaussian) for length in space]
    found = []
    for start, stop in chunks(places, runs.batch):
        index = np.unravel_index(np.arange(start, stop), space)
        masks = np.ones((stop - start, 1, *[1] * len(space)), a.dtype)
        for axis, (table, at) in enumerate(zip(near, index, strict=True)):
            lengths = [n if i == axis else 1 for i, n in enumerate(space)]
            masks = masks * table[at].reshape(-1, 1, *lengths).astype(a.dtype)
        found.append(runs.tail(a * masks))
    y = np.concatenate(found)  # [places, T]
    return np.asarray((y - y.min(axis=0)).T.reshape(-1, *space))


def _near(length: int, gaussian: int) -> NDArray[np.float64]:
    """Return what is left of each place along an axis, ``[length, length]``."""
    if not gaussian:
        return np.eye(length)
    away = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    return np.select([away == 0, away == 1], [0.5, 0.25])


@register(
    "rise",
    "Petsiuk et al. 2018, eq. 6",
    space="input",
    proportional=True,
    needs="nothing",
    cost="1 for each mask",
    drives=True,
)
def rise(
    runs: Runs, masks: int = 4000, cells: int = 8, keep: float = 0.5, seed: int = 0
) -> NDArray[np.float64]:
    """sum_i (y_i - mean y) M_i / (N keep), y_i of the image times the random mask M_i.

    The mean is taken off, so that the map says what the score gains or loses by a pixel.
    """
    return _weighted("rise", runs.forward, runs, masks, cells, keep, seed)


@register(
    "d-rise",
    "Petsiuk et al. 2021, eq. 3-6",
    space="input",
    needs="a detector's boxes",
    cost="1 for each mask",
    drives=True,
    boxes=True,
)
def d_rise(
    runs: Runs, masks: int = 5000, cells: int = 16, keep: float = 0.5, seed: int = 0
) -> NDArray[np.float64]:
    """As rise, with y_i how like the box the best one of the masked image is, in place and class.

    Without objectness the surest class's probability stands for it.
    """
    return _weighted("d-rise", runs.like_boxes, runs, masks, cells, keep, seed)


def _weighted(
    method: str,
    score: Callable[[NDArray[Any]], NDArray[np.float64]],
    runs: Runs,
    masks: int,
    cells: int,
    keep: float,
    seed: int,
) -> NDArray[np.float64]:
    """Return random masks weighted by how far the masked image's score is above the mean."""
    positive(method, masks=masks, cells=cells)
    if not 0 < keep < 1:
        raise MethodError(f"method '{method}': keep = {keep} must lie between 0 and 1.")
    image, drawn = runs.image, RandomMasks(runs.image.shape[1:], masks, cells, keep, seed)
    weighted = scores = total = np.zeros(1)
    for start, stop in chunks(int(masks), runs.batch):
        given = drawn[start:stop]
        y = score((image * given[:, None]).astype(image.dtype, copy=False))
        weighted = weighted + np.tensordot(y, given, ([0], [0]))
        scores, total = scores + y.sum(axis=0), total + given.sum(axis=0, dtype=np.float64)
    mean = (scores / masks).reshape(-1, *[1] * total.ndim)
    return np.asarray((weighted - mean * total) / (masks * keep))


class RandomMasks:
    """Masks of a coarse grid whose cells are kept at random, enlarged smoothly and shifted."""

    def __init__(
        self, space: tuple[int, ...], count: int, cells: int, keep: float, seed: int
    ) -> None:
        """Draw grids and shifts of as many masks; they are enlarged when asked for."""
        rng = np.random.default_rng(int(seed))
        grid = (int(count), *[int(cells)] * len(space))
        self._space = space
        self._grids = (rng.uniform(size=grid) < keep).astype(np.float32)
        self._cell = [-(-length // int(cells)) for length in space]
        self._shifts = rng.integers(0, self._cell, (int(count), len(space)))
        self._size = tuple((int(cells) + 1) * cell for cell in self._cell)

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        """Return masks ``[B, *S]``."""
        large = resized(self._grids[part], self._size)
        found = np.empty((len(large), *self._space), np.float32)
        for mask, whole, shift in zip(found, large, self._shifts[part], strict=True):
            mask[:] = whole[tuple(slice(s, s + n) for s, n in zip(shift, self._space, strict=True))]
        return found
