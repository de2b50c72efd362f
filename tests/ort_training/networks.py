"""The networks that both engines differentiate."""

from __future__ import annotations

from pathlib import Path

import onnxcam

from ..conftest import shared
from ..surgeon.light import NAMES, seeded

REAL = [
    "efficientnet-lite0-torch",
    "mnist-cntk",
    "mobilenetv2-torch-dynamo",
    "pplcnetv2-paddle",
    "resnet50-keras-w8",
    "squeezenet1.1-caffe",
    "squeezenet1.1-mxnet-opset7",
]
NETWORKS = ["default", *NAMES, *REAL]


def write(name: str, folder: Path) -> Path:
    """Return a network's file; the light ones get weights that make a difference."""
    if name == "default":
        return onnxcam.default_model()
    if name in REAL:
        return shared("models", f"{name}.onnx")
    path = folder / f"{name}.onnx"
    if not path.exists():
        path.write_bytes(seeded(name).SerializeToString())
    return path
