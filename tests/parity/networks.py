"""torchvision architectures split where Grad-CAM looks, with weights that can fail a test.

Each network is ``head(features(x))``: ``features`` ends in the maps that are explained, so that
PyTorch's gradient with respect to them, and pytorch-grad-cam's hooks, look at the very tensor
that onnxcam chooses by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def torchvision_models() -> Any:
    """Import torchvision's models; its compiled operators are not needed and may be missing."""
    try:
        import torchvision.models
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        import torchvision.models
    return torchvision.models


class Split(nn.Module):
    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def _seq(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


def _pooled(*dense: nn.Module) -> nn.Sequential:
    return _seq(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *dense)


class _Mean(nn.Module):
    """The spatial mean as some networks write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3])


def _upto(model: nn.Module, *skipped: str) -> nn.Sequential:
    """All children in their order, without those that the head holds."""
    return _seq(*(m for name, m in model.named_children() if name not in skipped))


SPLITS: dict[str, Callable[[Any], Split]] = {
    "vgg16": lambda m: Split(
        m.features[:-1], _seq(m.features[-1], m.avgpool, nn.Flatten(), m.classifier)
    ),
    "resnet50": lambda m: Split(_upto(m, "avgpool", "fc"), _pooled(m.fc)),
    "densenet121": lambda m: Split(_seq(m.features, nn.ReLU()), _pooled(m.classifier)),
    "mobilenet_v2": lambda m: Split(m.features, _pooled(m.classifier)),
    "mobilenet_v3_large": lambda m: Split(m.features, _pooled(m.classifier)),
    "efficientnet_b0": lambda m: Split(m.features, _pooled(m.classifier)),
    "squeezenet1_1": lambda m: Split(m.features, _seq(m.classifier, nn.Flatten())),
    "shufflenet_v2_x1_0": lambda m: Split(_upto(m, "fc"), _seq(_Mean(), m.fc)),
    "googlenet": lambda m: Split(
        _upto(m, "aux1", "aux2", "avgpool", "dropout", "fc"), _pooled(m.dropout, m.fc)
    ),
    "regnet_y_400mf": lambda m: Split(_upto(m, "avgpool", "fc"), _pooled(m.fc)),
    "mnasnet1_0": lambda m: Split(m.layers, _seq(_Mean(), m.classifier)),
    "convnext_tiny": lambda m: Split(m.features, _seq(m.avgpool, m.classifier)),
    "inception_v3": lambda m: Split(
        _upto(m, "AuxLogits", "avgpool", "dropout", "fc"), _pooled(m.dropout, m.fc)
    ),
    "alexnet": lambda m: Split(
        m.features[:-1], _seq(m.features[-1], m.avgpool, nn.Flatten(), m.classifier)
    ),
    "resnext50_32x4d": lambda m: Split(_upto(m, "avgpool", "fc"), _pooled(m.fc)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True, "transform_input": False},
    "inception_v3": {"aux_logits": False, "init_weights": False, "transform_input": False},
}
SIZES = {"vgg16": 224, "alexnet": 224, "squeezenet1_1": 160, "inception_v3": 139}


def build(name: str) -> tuple[Split, int]:
    """Return a seeded network in inference mode, and the size of its images."""
    torch.manual_seed(3)
    model = getattr(torchvision_models(), name)(weights=None, **OPTIONS.get(name, {}))
    split = SPLITS[name](model)
    size = SIZES.get(name, 128)
    _enliven(split, size)
    for module in split.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # a hook would see what comes after (NUMERICS: in-place ReLU)
    return split.eval(), size


def _enliven(model: nn.Module, size: int) -> None:
    """Scale weights by their fan-in and take batch-norm statistics from data.

    Default initialisation gives maps of 1e-10 and less, where every comparison passes.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.1)
            module.reset_running_stats()
            module.momentum = None  # a cumulative average
        elif type(module).__name__ == "CNBlock":
            nn.init.uniform_(module.layer_scale, 0.2, 0.6)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        model(torch.randn(4, 3, size, size))
