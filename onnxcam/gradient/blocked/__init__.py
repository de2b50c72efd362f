"""Forms of a gradient for ONNX Runtime on CPU, which keeps images in blocks of channels."""
