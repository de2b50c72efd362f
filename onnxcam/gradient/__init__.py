"""Reverse-mode differentiation of ONNX graphs, written in standard operators."""

from onnxcam.gradient.rules import (
    conv,
    elementwise,
    linear,
    normalization,
    pool,
    quantized,
    shape,
)
from onnxcam.gradient.walker import add_gradient, missing_rules, needed_opset

__all__ = [
    "add_gradient",
    "conv",
    "elementwise",
    "linear",
    "missing_rules",
    "needed_opset",
    "normalization",
    "pool",
    "quantized",
    "shape",
]
