"""Gradients of the node tests of the ONNX standard."""
