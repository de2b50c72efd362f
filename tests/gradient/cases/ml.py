"""Cases for the operators of ai.onnx.ml."""

from __future__ import annotations

import numpy as np

from .values import case, i64, weight


def _picked(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.atleast_2d(x[..., places.ravel()])


def _scaled(x: np.ndarray, offset: list[float], scale: list[float]) -> np.ndarray:
    return (x - np.array(offset)) * np.array(scale)


ML = "ai.onnx.ml"
case("ArrayFeatureExtractor", weight(2, 3, 5), i64(4, 1, 1), domain=ML, obvious=_picked)
case("ArrayFeatureExtractor", weight(5), i64(3, 0), domain=ML, obvious=_picked)
case(
    "Scaler",
    weight(2, 3),
    domain=ML,
    obvious=_scaled,
    offset=[0.5, 1.0, -2.0],
    scale=[2.0, 0.3, -1.0],
)
case("Scaler", weight(2, 3), domain=ML, obvious=_scaled, offset=[0.5], scale=[0.25])
