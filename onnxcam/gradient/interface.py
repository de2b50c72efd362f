"""What a model with gradients calls its inputs and outputs, and who can write one."""

from __future__ import annotations

from typing import Literal

SEED = "seed:"  # before the name of a differentiated tensor
GRADIENT = "gradient:"  # before the name of one that it is differentiated with respect to
NEGATIVE = "onnxcam:negative"  # output: which nodes read negative activations

Engine = Literal["rules", "ort"]  # onnxcam's rules or ONNX Runtime's own gradient builder
