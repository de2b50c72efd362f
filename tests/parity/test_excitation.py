"""Excitation backprop against zennit's, to the image and to an inner layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before zennit imports them
pytest.importorskip("zennit", reason="zennit is not installed")

import onnxruntime  # noqa: E402
from torch import nn  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import ExcitationBackprop  # noqa: E402
from zennit.layer import Sum  # noqa: E402

import onnxcam  # noqa: E402

STABILIZER = 1e-12  # zennit's own adds 1e-6 to what is divided by


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.sum = Sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(torch.stack([x, self.body(x)], dim=-1))


def _plain() -> nn.Sequential:
    """In the way of VGG."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 5 * 4, 16),
        nn.ReLU(),
        nn.Linear(16, 7),
    )


def _residual() -> nn.Sequential:
    """In the way of ResNet; the scales of normalization have both signs."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        Residual(8),
        Residual(8),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    )


def _seeded(network: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0.02, 0.2)
    return network.eval()


@pytest.fixture(params=[_plain, _residual], ids=["plain", "residual"])
def network(request: pytest.FixtureRequest) -> Iterator[nn.Sequential]:
    yield _seeded(request.param())


@pytest.mark.parametrize("to", ["image", "inner"])
@pytest.mark.parametrize("target", [1, 5])
def test_equals_zennit(network: nn.Sequential, to: str, target: int, tmp_path: Path) -> None:
    torch.manual_seed(8)
    x = torch.rand(2, 3, 24, 20)
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        network,
        x,
        path,
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["image"],
        output_names=["scores"],
    )
    seed = torch.eye(7)[[target, target]]
    split = 3
    with ExcitationBackprop(
        stabilizer=STABILIZER, zero_params=["bias"], canonizers=[SequentialMergeBatchNorm()]
    ).context(network) as hooked:
        leaf = (x if to == "image" else hooked[:split](x)).detach().requires_grad_()
        rest = hooked if to == "image" else hooked[split:]
        (expected,) = torch.autograd.grad(rest(leaf), leaf, seed)
    expected = expected.numpy()
    name = "image" if to == "image" else _third(path)
    made = onnxcam.add_gradients(path, "scores", name, policy="excitation")
    session = onnxruntime.InferenceSession(made.SerializeToString())
    feeds = {"image": x.numpy(), "seed:scores": seed.numpy()[None]}
    found, negative = session.run([f"gradient:{name}", "onnxcam:negative"], feeds)
    assert np.abs(expected).max() > 1e-3 and expected.min() >= 0
    np.testing.assert_allclose(found[0], expected, atol=1e-4 * expected.max())
    assert not negative.any()


def _third(path: Path) -> str:
    """Return the tensor after three modules: of the first pooling, or of what it reads."""
    import onnx

    graph = onnx.load(path).graph
    pool = next(n for n in graph.node if n.op_type == "MaxPool")
    return (
        pool.output[0]
        if sum(n.op_type == "BatchNormalization" for n in graph.node) == 0
        else pool.input[0]
    )
