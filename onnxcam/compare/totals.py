"""Means over images, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcam.compare.results import MEASURES, Row

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Total:
    """A measure over images.

    Attributes:
        mean: over the images that have it.
        low: lower end of the 95 % confidence interval of the mean.
        high: its upper end.
        count: how many images have it.
    """

    mean: float
    low: float
    high: float
    count: int


def totals(rows: Sequence[Row], seed: int = 0) -> dict[str, Total]:
    """Return every measure's total; of no image there is none.

    The intervals are percentiles of the means of 1,000 samples that are drawn with replacement
    (Efron 1979); the same seed gives the same.
    """
    found = {}
    for name in MEASURES:
        values = np.array([r.measures[name] for r in rows if name in r.measures], np.float64)
        if len(values):
            low, high = bootstrap(values, seed)
            found[name] = Total(float(values.mean()), low, high, len(values))
    return found


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the ends of the confidence interval of a mean."""
    generator = np.random.default_rng(seed)
    means = np.array(
        [values[generator.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
