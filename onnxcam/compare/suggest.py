"""Thresholds from the reference itself: how much its answers and maps change under small noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.feeding import Fed, Feeding
from onnxcam.compare.policy import Policy
from onnxcam.compare.results import Row
from onnxcam.compare.run import Run
from onnxcam.compare.sides import ModelSide, Seen
from onnxcam.compare.totals import totals

LEVELS = 4.0  # standard deviation of the noise, in grey levels of 255
_ROUND = 100


@dataclass
class Noisy:
    """A side whose images are disturbed; the noise of an image is the same each time."""

    side: ModelSide
    levels: float = LEVELS
    seed: int = 0

    def __post_init__(self) -> None:
        """Take what is known of the side."""
        self.inputs: Mapping[str, NDArray[Any]] = self.side.inputs
        self.recorded = False
        self.about = replace(self.side.about, runtime=f"noise of {self.levels:g} grey levels")

    def look(
        self, keys: Sequence[str], fed: Sequence[Fed], like: Sequence[Seen] | None
    ) -> list[Seen]:
        """Return what the side says of disturbed images."""
        disturbed = [
            f._replace(tensor=self._disturbed(k, f.tensor)) for k, f in zip(keys, fed, strict=True)
        ]
        return self.side.look(keys, disturbed, like)

    def _disturbed(self, key: str, tensor: NDArray[Any]) -> NDArray[Any]:
        generator = np.random.default_rng([self.seed, int(key[:8] or "0", 16)])
        size = self.levels / 255 * _span(self.side, tensor)
        noisy = tensor.astype(np.float64) + generator.normal(0, size, tensor.shape)
        if tensor.dtype.kind in "ui":
            limits = np.iinfo(tensor.dtype)
            noisy = np.clip(np.rint(noisy), limits.min, limits.max)
        return noisy.astype(tensor.dtype)


def _span(side: ModelSide, tensor: NDArray[Any]) -> float:
    """Return how far black and white lie apart in the tensor."""
    how = side.about.preprocess
    if how is None:
        return float(tensor.max()) - float(tensor.min())
    span = 255 / abs(how.divide * float(np.mean(how.std)))
    return span


def suggested(rows: Sequence[Row]) -> Policy:
    """Return thresholds that the reference itself keeps to under noise, with a little room.

    They are the lower (upper) ends of the means' confidence intervals, rounded away from the mean
    to two digits, a hundredth beyond them.
    """
    found = totals(rows)
    mean = {}
    if "agreement" in found:
        mean["min_agreement"] = max(0.0, _down(found["agreement"].low))
    if "correlation" in found:
        mean["min_correlation"] = max(-1.0, _down(found["correlation"].low))
    if "peak_shift" in found:
        mean["max_peak_shift"] = min(1.0, -_down(-found["peak_shift"].high))
    return Policy(mean=mean)


def _down(value: float) -> float:
    return (math.floor(value * _ROUND) - 1) / _ROUND


def against_itself(side: ModelSide, images: Sequence[Path], seed: int = 0) -> Iterator[list[Row]]:
    """Compare a model with itself under noise, yielding rows a batch."""
    about = side.about
    feeding = Feeding(about, about.image, about.ends)
    yield from Run(side, Noisy(side, seed=seed), feeding, images)
