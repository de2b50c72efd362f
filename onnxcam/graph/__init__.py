"""Questions about any ONNX graph, and edits of it. Nothing here knows a gradient or a file."""
