"""Reverse-mode differentiation of ONNX graphs, written in standard operators."""

from onnxcam.gradient import rules
from onnxcam.gradient.walker import add_gradient, missing_rules, needed_opset

__all__ = ["add_gradient", "missing_rules", "needed_opset", "rules"]
