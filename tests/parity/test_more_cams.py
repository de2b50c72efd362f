"""More class activation maps against pytorch-grad-cam, torch-cam and PyTorch autograd.

On the seeded networks of ``test_methods``; torch-cam and slow re-implementations stand in where
pytorch-grad-cam has no such method, or does something else than the paper.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
pytest.importorskip("captum", reason="captum is not installed")

from .test_methods import Network, network, scaled  # noqa: E402

network = network


def activations(net: Network, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the explained layer's activations, and the scores made of them."""
    found: list[torch.Tensor] = []
    handle = net.module.register_forward_hook(lambda m, i, o: found.append(o))
    scores = net.model(images)
    handle.remove()
    return found[0], scores


def gradients(net: Network, images: torch.Tensor, loss=None) -> tuple[np.ndarray, np.ndarray]:
    a, scores = activations(net, images)
    total = scores[:, net.target].sum() if loss is None else loss(scores)
    [g] = torch.autograd.grad(total, a)
    return a.detach().double().numpy(), g.double().numpy()


def differs(net: Network, maps: np.ndarray) -> None:
    assert np.abs(scaled(maps) - scaled(net.ours("grad-cam"))).max() > 0.05


def close(ours: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert ours.shape == expected.shape and scale > 1e-6
    assert np.abs(ours - expected).max() <= 1e-3 * scale


def test_the_papers_ablations_of_grad_cam(network: Network) -> None:
    a, g = gradients(network, network.images)
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
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    def loss(scores: torch.Tensor) -> torch.Tensor:
        away = (scores - scores[:, [network.target]]).abs().detach()
        nearest = away.argsort(dim=1)[:, 1:4]
        pairs = zip(scores, nearest, strict=True)
        return sum(FinerWeightedTarget(network.target, n.tolist(), alpha)(s) for s, n in pairs)

    a, g = gradients(network, network.images, loss)
    expected = (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=1)
    close(network.ours(f"finer-cam:alpha={alpha}"), expected)
    differs(network, expected)
