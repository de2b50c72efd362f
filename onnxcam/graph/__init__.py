"""Questions about any ONNX graph, and edits of it. Nothing here knows a gradient or a file."""

import logging

# What onnx_ir logs of broken files is not printed, unless a program sets up logging.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
