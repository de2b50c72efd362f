"""What each superpixel of the image does to the score, alone and with the others.

A superpixel that is left out has all its values replaced by one number, ``value``; the map has its
number at all of its pixels.
"""

from __future__ import annotations

from itertools import product
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.methods.base import Runs, chunks, positive
from onnxcam.methods.registry import register

_ROUNDS = 10  # of superpixels; Achanta et al. 2012, section 3.1: enough for most images


@register(
    "feature-ablation",
    "captum, FeatureAblation; superpixels of Achanta et al. 2012, eq. 3",
    space="input",
    proportional=True,
    needs="nothing",
    cost="1 for each superpixel",
    drives=True,
)
def feature_ablation(
    runs: Runs, segments: int = 50, compactness: float = 0.5, value: float = 0.0
) -> NDArray[np.float64]:
    """The score, less that of the image without the superpixel."""
    labels = superpixels("feature-ablation", runs.image, segments, compactness)
    count = int(labels.max()) + 1
    drops = runs.value - _scores(runs, labels, value, _Without(count), count)
    return np.asarray(drops.T[:, labels])


@register(
    "shapley",
    "Shapley 1953; Strumbelj and Kononenko 2010, algorithm 1",
    space="input",
    proportional=True,
    needs="nothing",
    cost="1 for each superpixel of each sample",
    drives=True,
)
def shapley(
    runs: Runs,
    samples: int = 20,
    segments: int = 50,
    compactness: float = 0.5,
    value: float = 0.0,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The mean over orders of what the score gains when the superpixel joins those before it.

    Every second order is the one before it backwards, which takes off the noise of interactions of
    two (Mitchell et al. 2022, section 4.1). Where all subsets are no more runs than the sampled
    orders, they are taken, and the values are exact.
    """
    positive("shapley", samples=samples)
    labels = superpixels("shapley", runs.image, segments, compactness)
    count = int(labels.max()) + 1
    if 2**count <= samples * (count - 1) + 2:
        found = exact(_scores(runs, labels, value, _subsets(count), 2**count))
        return np.asarray(found.T[:, labels])
    orders = drawn_orders(int(samples), count, int(seed))
    subsets = _Joining(orders)
    inner = _scores(runs, labels, value, subsets, len(subsets))
    inner = inner.reshape(len(orders), count - 1, -1)
    nothing = _scores(runs, labels, value, np.zeros((1, count), bool), 1)
    ends = [np.broadcast_to(end, inner[:, :1].shape) for end in (nothing, runs.value)]
    gains = np.diff(np.concatenate([ends[0], inner, ends[1]], axis=1), axis=1)
    found = np.zeros((count, gains.shape[-1]))
    np.add.at(found, orders, gains / len(orders))
    return np.asarray(found.T[:, labels])


def drawn_orders(samples: int, count: int, seed: int) -> NDArray[np.intp]:
    """Return orders ``[samples, count]``, every second one the one before it backwards."""
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(count) for _ in range(-(-samples // 2))])
    return np.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, count)[:samples]


def exact(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Shapley values ``[F, ...]`` of scores ``[2^F, ...]``.

    Bit ``i`` of a row's number says whether ``i`` is there.
    """
    count = len(y).bit_length() - 1
    rows = np.arange(len(y))
    sizes = _subsets(count).sum(axis=1)
    share = [factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]
    found = np.empty((count, *y.shape[1:]))
    for i in range(count):
        before = rows[rows >> i & 1 == 0]
        found[i] = np.tensordot(np.take(share, sizes[before]), y[before | 1 << i] - y[before], 1)
    return found


def _subsets(count: int) -> NDArray[np.bool_]:
    """Return all subsets ``[2^F, F]``: bit ``i`` of a row's number says whether ``i`` is there."""
    return np.asarray(np.arange(2**count)[:, None] >> np.arange(count) & 1 == 1)


class _Without:
    """All superpixels but one, each in turn."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, part: slice) -> NDArray[np.bool_]:
        return ~np.eye(self._count, dtype=np.bool_)[part]


class _Joining:
    """The subsets of each order, from its first superpixel alone to all but its last."""

    def __init__(self, orders: NDArray[np.intp]) -> None:
        self._places = np.argsort(orders, axis=1)

    def __len__(self) -> int:
        return len(self._places) * (len(self._places[0]) - 1)

    def __getitem__(self, part: slice) -> NDArray[np.bool_]:
        order, last = np.divmod(np.arange(len(self))[part], len(self._places[0]) - 1)
        return np.asarray(self._places[order] <= last[:, None])


def _scores(
    runs: Runs, labels: NDArray[np.intp], value: float, subsets: Any, count: int
) -> NDArray[np.float64]:
    """Return the explained numbers ``[count, T]`` of the image with each subset alone.

    ``subsets[start:stop]`` are ``[B, F]``, bool.
    """
    image, found = runs.image, []
    for start, stop in chunks(count, runs.batch):
        kept = subsets[start:stop][:, labels][:, None]
        found.append(runs.forward(np.where(kept, image, np.asarray(value, image.dtype))))
    return np.concatenate(found)


def superpixels(
    method: str, image: NDArray[Any], segments: float, compactness: float
) -> NDArray[np.intp]:
    """Divide an image ``[C, *S]`` into about so many superpixels, ``[*S]`` numbered from 0.

    SLIC: k-means of values (scaled to a range of 1) and places (in steps of the grid that the
    centres start on, times ``compactness``), each centre looking two steps far. Parts of one
    superpixel may lie apart.

    Raises:
        MethodError: a number is out of range.
    """
    positive(method, segments=segments)
    if not compactness > 0:
        raise MethodError(f"method '{method}': compactness = {compactness} must be above 0.")
    space = image.shape[1:]
    step = max(1.0, (np.prod(space) / segments) ** (1 / len(space)))
    grid = [max(1, round(length / step)) for length in space]
    ticks = [(np.arange(n) + 0.5) * length / n for n, length in zip(grid, space, strict=True)]
    places = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij")).reshape(len(space), -1)
    values = image.reshape(len(image), -1).astype(np.float64)
    values = values / max(np.ptp(values), 1e-12)
    points = np.concatenate([values, places * (compactness / step)])  # [C + S, P]
    labels = np.ravel_multi_index(
        [p * n // length for p, n, length in zip(places, grid, space, strict=True)], grid
    )
    centres = np.array(list(product(*ticks)))
    for _ in range(_ROUNDS):
        means = _means(points, labels, len(centres))
        labels = _nearest(points.reshape(-1, *space), means, centres, 2 * step, labels)
        centres = _means(places, labels, len(centres), centres.T).T
    return np.unique(labels, return_inverse=True)[1].reshape(space)


def _means(
    points: NDArray[Any],
    labels: NDArray[np.intp],
    count: int,
    otherwise: NDArray[np.float64] | float = np.nan,
) -> NDArray[np.float64]:
    """Return the mean of points ``[D, P]`` of each label, ``[D, count]``."""
    sizes = np.bincount(labels, minlength=count)
    sums = np.stack([np.bincount(labels, one, minlength=count) for one in points])
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), otherwise)


def _nearest(
    points: NDArray[np.float64],
    means: NDArray[np.float64],
    centres: NDArray[np.float64],
    reach: float,
    labels: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return the label of the nearest mean that is within reach; without one it stays."""
    space = points.shape[1:]
    found, least = labels.reshape(space).copy(), np.full(space, np.inf)
    for n, centre in enumerate(centres):
        if np.isnan(means[0, n]):
            continue  # it has lost its pixels
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        window = tuple(slice(a, int(b) + 1) for a, b in zip(low, centre + reach, strict=True))
        mean = means[:, n].reshape(-1, *[1] * len(space))
        away = np.square(points[(slice(None), *window)] - mean).sum(axis=0)
        closer = away < least[window]
        least[window] = np.where(closer, away, least[window])
        found[window] = np.where(closer, n, found[window])
    return found.reshape(-1)
