"""How alike two answers and two heatmaps are; each measure is one short function.

Maps are heatmaps, ``[*S]``, at least 0, that say something: not the same everywhere. Where one does
not, :func:`compare_maps` says so, and no measure is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import Axis
from onnxcam.kernels.space import upsample

Floats = NDArray[np.float64]

REGION = 0.15  # of the peak: where a map counts as hot, Selvaraju et al. 2017, section 4.1
TOP = 5

ALIKE, ONE, BOTH = "compared", "one map says nothing", "both maps say nothing"
UNSEEN, LOST = "nothing is detected", "the box is lost"  # of detectors
# What stands for a map beside one that says nothing: no likeness at all.
NOTHING_ALIKE = {
    "correlation": 0.0,
    "rank_correlation": 0.0,
    "rmse": 1.0,
    "iou": 0.0,
    "peak_shift": 1.0,
    "mass_moved": 1.0,
}


def pearson(a: Floats, b: Floats) -> float:
    """Return the linear correlation of two maps, -1 to 1."""
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(np.clip((x @ y) / size, -1, 1)) if size > 0 else 0.0


def ranks(values: Floats) -> Floats:
    """Return the ranks of numbers, from 1; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2)[inverse.ravel()]
    return shared


def spearman(a: Floats, b: Floats) -> float:
    """Return the correlation of the ranks of two maps' values, -1 to 1."""
    return pearson(ranks(a), ranks(b))


def rmse(a: Floats, b: Floats) -> float:
    """Return the root mean square difference of two maps, each divided by its maximum, 0 to 1."""
    return float(np.sqrt(np.mean((a / a.max() - b / b.max()) ** 2)))


def region_iou(a: Floats, b: Floats) -> float:
    """Return the intersection over the union of where the maps reach 15 % of their peaks."""
    hot, other = a >= REGION * a.max(), b >= REGION * b.max()
    return float((hot & other).sum() / (hot | other).sum())


def peak_distance(a: Floats, b: Floats, extent: Sequence[float]) -> float:
    """Return how far apart the peaks lie, as a fraction of the input's diagonal.

    Args:
        a: a map.
        b: another of the same shape.
        extent: the lengths of the axes, in pixels of the input.

    Returns:
        0 to 1; of several equal peaks the nearest two count.
    """
    size = np.asarray(extent, np.float64)
    scale = size / np.array(a.shape)
    first, second = (np.argwhere(m == m.max())[:64] * scale for m in (a, b))
    apart = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
    return float(apart / np.linalg.norm(size))


def mass_moved(a: Floats, b: Floats) -> float:
    """Return which share of a map's mass lies elsewhere in the other: total variation, 0 to 1."""
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def says_nothing(heat: NDArray[np.float32]) -> bool:
    """Whether a map is empty, the same everywhere, or not finite."""
    if not heat.size:
        return True
    high, low = float(heat.max()), float(heat.min())
    return not math.isfinite(high) or high <= 0 or high - low <= 1e-6 * high


def compare_maps(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], extent: Sequence[float]
) -> tuple[str, dict[str, float]]:
    """Compare two heatmaps.

    Maps of different sizes are brought to the larger one's, linearly with half-pixel centres.

    Args:
        reference: ``[*S]``, at least 0.
        candidate: another, over the same part of the image.
        extent: as :func:`peak_distance` takes it.

    Returns:
        What came of it: :data:`ALIKE`, :data:`ONE` or :data:`BOTH`; and the measures by name, none
        where both say nothing.
    """
    empty = says_nothing(reference), says_nothing(candidate)
    if all(empty):
        return BOTH, {}
    if any(empty):
        return ONE, dict(NOTHING_ALIKE)
    grid = tuple(max(n) for n in zip(reference.shape, candidate.shape, strict=True))
    a, b = (_on(grid, m).astype(np.float64) for m in (reference, candidate))
    return ALIKE, {
        "correlation": pearson(a, b),
        "rank_correlation": spearman(a, b),
        "rmse": rmse(a, b),
        "iou": region_iou(a, b),
        "peak_shift": peak_distance(a, b, extent),
        "mass_moved": mass_moved(a, b),
    }


def _on(grid: Sequence[int], heat: NDArray[np.float32]) -> NDArray[np.float32]:
    if heat.shape == tuple(grid):
        return heat
    return upsample(heat, [Axis.whole(n, m) for n, m in zip(grid, heat.shape, strict=True)])


def best(scores: NDArray[np.floating], count: int = TOP) -> list[int]:
    """Return the classes with the largest scores; of equal ones the lower index comes first."""
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order[:count]]


def compare_scores(
    reference: NDArray[np.floating], candidate: NDArray[np.floating]
) -> dict[str, float]:
    """Compare the class scores of one image, ``[C]`` each.

    Returns:
        ``agreement``, 1 where the predicted class is the same, else 0; ``top5``, which share of the
        five best classes is the same; ``score_drift``, by how much the score of the reference's
        class differs, in standard deviations of the reference's scores.
    """
    first, second = best(reference), best(candidate)
    target = first[0]
    spread = float(reference.std()) if len(reference) > 1 else abs(float(reference[0]))
    drift = abs(float(candidate[target]) - float(reference[target]))
    return {
        "agreement": float(first[0] == second[0]),
        "top5": len(set(first) & set(second)) / len(first),
        "score_drift": drift / spread if spread > 0 else float(drift > 0),
    }
