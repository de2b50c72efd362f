"""Reverse-mode differentiation of ONNX graphs, written in standard operators."""
