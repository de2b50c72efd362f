"""Whole networks to their input against PyTorch autograd: a few of those that are swept by hand.

``python -m tests.parity.to_input`` runs all of them, with both exporters, at fixed and dynamic
batch; ``docs/networks.md`` holds the outcome.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before timm imports it
pytest.importorskip("timm", reason="timm is not installed")

from .architectures import network  # noqa: E402
from .to_input import TOLERANCE, Reference, check  # noqa: E402


@pytest.mark.parametrize(
    ("name", "exporter", "batch"),
    [
        ("torchvision/resnet18", "torchscript", "dynamic"),
        ("torchvision/squeezenet1_1", "dynamo", "dynamic"),
        ("torchvision/mobilenet_v3_small", "dynamo", "fixed"),
        ("torchvision/swin_t", "torchscript", "dynamic"),
        ("timm/vit_tiny_patch16_224", "dynamo", "dynamic"),
        ("timm/pvt_v2_b0", "torchscript", "fixed"),
        ("timm/levit_128s", "torchscript", "dynamic"),
        ("timm/efficientformer_l1", "dynamo", "fixed"),
    ],
)
def test_gradient_to_the_input(name: str, exporter: str, batch: str) -> None:
    model, size = network(name)
    outcome = check(model, Reference(model, size), exporter, batch)
    assert outcome.verdict == "right" and outcome.error <= TOLERANCE, str(outcome)
