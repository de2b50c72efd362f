"""Transformers and ConvNeXt against PyTorch, at the layer that pytorch-grad-cam's users take.

As there with a ``reshape_transform``, the map is that of the grid of patches, other tokens left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # timm imports torchvision
timm = pytest.importorskip("timm", reason="timm is not installed")
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

import onnxcam  # noqa: E402

Transform = Callable[[torch.Tensor], torch.Tensor]


def tokens(before: int, rows: int, columns: int) -> Transform:
    return lambda t: t[:, before:].reshape(len(t), rows, columns, -1).permute(0, 3, 1, 2)


def last(t: torch.Tensor) -> torch.Tensor:
    return t.permute(0, 3, 1, 2)


def maps(t: torch.Tensor) -> torch.Tensor:
    return t


# network, its options, the module, its transform, the layer (auto: onnxcam finds the same one)
NETWORKS: dict[str, tuple[dict, Callable, Transform, str]] = {
    "vit_tiny_patch16_224": (
        {"depth": 3}, lambda m: m.blocks[-1].norm1, tokens(1, 14, 14), "auto",
    ),
    "deit_tiny_distilled_patch16_224": (
        {"depth": 2}, lambda m: m.blocks[-1].norm1, tokens(2, 14, 14), "auto",
    ),
    "swin_tiny_patch4_window7_224": (
        {"depths": (1, 1, 2, 2)}, lambda m: m.layers[-1].blocks[-1].norm1, last, "auto",
    ),
    "swin_s3_tiny_224": (
        {"depths": (1, 1, 2, 2)}, lambda m: m.layers[-2].blocks[-1].norm1, last,
        "/layers/layers.2/blocks/blocks.1/norm1/LayerNormalization_output_0",
    ),
    "pvt_v2_b0": (
        {}, lambda m: m.stages[-1].blocks[-1].norm1, tokens(0, 7, 7),
        "/stages/stages.3/blocks.1/norm1/LayerNormalization_output_0",
    ),
    "convnext_atto": ({}, lambda m: m.stages[-1].blocks[-1], maps, "auto"),
    "maxvit_rmlp_pico_rw_256": (
        {}, lambda m: m.stages[-1].blocks[-1].attn_grid.norm1, last, "auto",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_of_the_usual_layer(name: str, tmp_path: Path) -> None:
    options, module, transform, layer = NETWORKS[name]
    torch.manual_seed(5)
    model = timm.create_model(name, pretrained=False, num_classes=10, **options).eval()
    with torch.no_grad():  # as it comes, scores hardly depend on the image
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    size = model.default_cfg["input_size"][-1]
    images = torch.randn(1, 3, size, size)
    path = tmp_path / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), path, opset_version=17, dynamo=False)
        explainer = onnxcam.Explainer(path, layer=layer)
    found = explainer.explain(images.numpy(), 3)[0]

    hooked = cams.GradCAM(model, [module(model)], reshape_transform=transform)
    scores = hooked.activations_and_grads(images)
    model.zero_grad()
    scores[0, 3].backward()
    activations = hooked.activations_and_grads.activations[0][0].detach().numpy()
    gradients = hooked.activations_and_grads.gradients[0][0].detach().numpy()
    right = np.einsum("k,khw->hw", gradients.mean((1, 2)), activations)
    assert found.score == pytest.approx(scores[0, 3].item(), rel=1e-3, abs=1e-4)
    assert np.abs(right).max() > 1e-8 and np.ptp(right) > 0.1 * np.abs(right).max()
    np.testing.assert_allclose(found.signed, right, rtol=0, atol=1e-4 * np.abs(right).max())
