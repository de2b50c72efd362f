"""More class activation maps against pytorch-grad-cam, torch-cam and slow re-implementations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

from pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputTarget,
    FinerWeightedTarget,
)

from .seeded import NETWORKS, Network, close, differs, scaled, seeded  # noqa: E402


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    return seeded(request.param)


def theirs(network: Network, kind: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return pytorch-grad-cam's maps, scaled to 0..1, by default not resized."""
    with getattr(cams, kind)(model=network.model, target_layers=[network.module]) as cam:
        cam.get_target_width_height = lambda _: size
        wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
        return cam(input_tensor=network.images, targets=wanted)


@pytest.mark.parametrize(
    ("method", "kind"), [("xgrad-cam", "XGradCAM"), ("grad-cam-elementwise", "GradCAMElementWise")]
)
def test_cams_equal_pytorch_grad_cams(network: Network, method: str, kind: str) -> None:
    ours = network.ours(method)
    close(scaled(ours), theirs(network, kind))
    differs(network, ours)


def test_the_papers_ablations_of_grad_cam(network: Network) -> None:
    a, g = network.gradients(network.images)
    for pool, options in ((np.mean, "relu=0"), (np.max, "max=1"), (np.max, "max=1,relu=0")):
        weights = pool(g, axis=(2, 3), keepdims=True)
        expected = (weights * a).sum(axis=1)
        if "relu" in options:
            expected -= expected.min(axis=(1, 2), keepdims=True)
        close(network.ours(f"grad-cam:{options}"), expected)
        if pool is np.max:
            differs(network, expected)


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_finer_cam_equals_pytorch_grad_cams(network: Network, alpha: float) -> None:
    def loss(scores: torch.Tensor) -> torch.Tensor:
        away = (scores - scores[:, [network.target]]).abs().detach()
        nearest = away.argsort(dim=1)[:, 1:4]
        pairs = zip(scores, nearest, strict=True)
        return sum(FinerWeightedTarget(network.target, n.tolist(), alpha)(s) for s, n in pairs)

    a, g = network.gradients(network.images, loss)
    expected = (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=1)
    close(network.ours(f"finer-cam:alpha={alpha}"), expected)
    differs(network, expected)
