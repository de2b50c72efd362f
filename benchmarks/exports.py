"""Export architectures of torchvision and timm for the benchmarks: seeded weights, dynamic batch.

Speed does not depend on the weights' values, so none are downloaded.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from tests.parity.networks import torchvision_models

FOLDER = Path(os.environ.get("ONNXCAM_BENCHMARKS", tempfile.gettempdir())) / "onnxcam-benchmarks"
NAMES = ["resnet50", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1", "vgg16"]


def network(name: str) -> nn.Module:
    """Return a seeded architecture in inference mode, without in-place activations."""
    torch.manual_seed(0)
    if name.startswith("vit_"):
        torchvision_models()  # timm imports torchvision
        import timm

        timm.layers.set_fused_attn(False)  # attention stays readable in the graph
        model = timm.create_model(name, pretrained=False)
    else:
        model = getattr(torchvision_models(), name)(weights=None)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model.eval()


def export(name: str) -> Path:
    """Return the exported file, made on first use."""
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network(name),
                (torch.randn(1, 3, 224, 224),),
                str(path),
                dynamo=False,
                opset_version=17,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
            )
    return path
