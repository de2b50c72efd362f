"""ONNX Runtime's own gradient builder, the second engine."""
