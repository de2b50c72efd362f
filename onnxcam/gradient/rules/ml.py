"""Operators of ``ai.onnx.ml``, to which scikit-learn's pipelines are exported."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import expansion, stop

_ML = "ai.onnx.ml"


def _array_feature_extractor(c: Call) -> list[ir.Value]:
    """Gather from the last axis; a vector becomes a matrix of one row."""
    x, indices = c.x(0), c.op("Reshape", c.x(1), c.builder.ints(-1))
    picked = c.op("Gather", x, indices, axis=-1)
    return [c.op("Unsqueeze", picked, c.builder.ints(0)) if c.rank(x) == 1 else picked]


def _scaler(c: Call) -> list[ir.Value]:
    """Return (x - offset) scale; offset and scale hold one number, or one for each feature."""
    x, kind = c.x(0), ir.DataType.FLOAT
    offset = c.builder.constant(np.array(c.attribute("offset", [0.0])), kind)
    scale = c.builder.constant(np.array(c.attribute("scale", [1.0])), kind)
    x = x if x.dtype == kind else c.op("Cast", x, to=kind)
    return [c.op("Mul", c.op("Sub", x, offset), scale)]


expansion("ArrayFeatureExtractor", _array_feature_extractor, domain=_ML)
expansion("Scaler", _scaler, domain=_ML)
stop("Binarizer", "it is a step function, flat between its steps", domain=_ML)
stop(
    "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor",
    "trees compare, and their leaves are constants",
    domain=_ML,
)
