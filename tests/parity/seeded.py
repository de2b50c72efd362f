"""Three small networks with seeded weights, each explained at a layer whose gradient varies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import onnxcam

SIZE, CLASSES = 24, 7


def export(model: nn.Module, images: torch.Tensor, path: Path, **options: Any) -> None:
    """Write a network with tensors ``input`` and ``output``, of any number of images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (images,), str(path), dynamo=False, opset_version=17,
            input_names=["input"], output_names=["output"],
            dynamic_axes={"input": {0: "N"}, "output": {0: "N"}}, **options,
        )  # fmt: skip


class Plus(nn.Module):
    """A sum that a test may replace by a module that others know how to explain."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.plus, self.relu = Plus(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.plus(x, self.body(x)))


class Fire(nn.Module):
    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(before, channels, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(before, channels, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.three(x)], dim=1)


def plain() -> tuple[nn.Sequential, int]:
    """In the way of VGG; explained at its last convolution, before two dense layers."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
    layers += [nn.Conv2d(12, 12, 3), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(12 * 16, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers), 8


def residual() -> tuple[nn.Sequential, int]:
    """In the way of ResNet; explained after its second block of three."""
    layers = [nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [Residual(8), Residual(8), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), Residual(12)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES)]
    return nn.Sequential(*layers), 5


def branched() -> tuple[nn.Sequential, int]:
    """In the way of SqueezeNet; explained after its first fire module."""
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    layers += [Fire(8, 6), Fire(12, 8), nn.Conv2d(16, CLASSES, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers), 4


NETWORKS: dict[str, Callable[[], tuple[nn.Sequential, int]]] = {
    "plain": plain,
    "residual": residual,
    "branched": branched,
}


class Squeezed(nn.Module):
    """Squeeze-and-excitation: channels times the Sigmoid of what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(),
            nn.Conv2d(4, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class Attending(nn.Module):
    """Self-attention of one head between places, layer normalization before, GELU behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 20), nn.GELU(), nn.Linear(20, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        shares = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        return self.mlp(tokens + shares @ v).mean(dim=1)


def smooth() -> tuple[nn.Sequential, int]:
    """In the way of EfficientNet's stages, of SiLU; explained after its second."""
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.SiLU(), nn.Conv2d(8, 10, 3, padding=1), nn.SiLU()]
    layers += [nn.Conv2d(10, 12, 3, stride=2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, CLASSES)), 4


def squeezed() -> tuple[nn.Sequential, int]:
    """In the way of MobileNetV3: rectifiers, and a gate behind the layer."""
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 10, 3, padding=1), nn.ReLU()]
    layers += [Squeezed(10), nn.Conv2d(10, 12, 3, stride=2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12 * 25, CLASSES)), 4


def attending() -> tuple[nn.Sequential, int]:
    """Convolutions, then a block of a transformer; explained between them."""
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, Attending(12), nn.Linear(12, CLASSES)), 4


# Networks whose second derivatives are not 0.
CURVED: dict[str, Callable[[], tuple[nn.Sequential, int]]] = {
    "smooth": smooth,
    "squeezed": squeezed,
    "attending": attending,
}


class Network:
    """A network, split where it is explained, its file, two images.

    Attributes:
        model: ``head(features(x))``.
        module: the module whose output is explained.
        layer: the name of that tensor in the file.
        target: the class that is explained.
    """

    def __init__(self, name: str, biases: bool = True, **options: Any) -> None:
        torch.manual_seed(4)
        self.name = name
        self.model, split = {**NETWORKS, **CURVED}[name]()
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.uniform_(module.bias, -0.2, 0.2) if module.bias is not None else None
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.6, 1.4)
                nn.init.uniform_(module.bias, -0.2, 0.2)
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 2)
                if not biases:
                    nn.init.zeros_(module.running_mean)
            if not biases and getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        self.model.eval()
        self.features, self.head = self.model[:split], self.model[split:]
        self.module = self.model[split - 1]
        self.images = torch.randn(2, 3, SIZE, SIZE)
        with torch.no_grad():
            self.target = int(self.model(self.images).min(dim=0).values.argmax())
        self.path = Path(mkdtemp(prefix="seeded-")) / f"{name}.onnx"
        export(self.model, self.images, self.path, **options)
        self.layer = self.named(self.features)

    def named(self, features: nn.Sequential) -> str:
        """Return the name of the tensor that the output of the first modules is in the file."""
        model = onnx.load(self.path)
        with torch.no_grad():
            expected = features(self.images).numpy()
        names = [n.output[0] for n in model.graph.node]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        found = dict(zip(names, session.run(names, {"input": self.images.numpy()}), strict=True))
        return next(  # the last one: a rectifier may leave a sum as it is, but not its gradient
            n for n, v in reversed(found.items())
            if v.shape == expected.shape and np.allclose(v, expected, atol=1e-4)
        )  # fmt: skip

    def ours(self, method: str, layer: str | list[str] = "") -> np.ndarray:
        """Return signed maps ``[N, ...]``."""
        explainer = onnxcam.Explainer(
            self.path, layer=layer or self.layer, method=method, preprocess="unit"
        )
        found = explainer.explain_batch(self.images.numpy(), self.target)
        return np.stack([e.signed for [e] in found])

    def gradients(
        self, images: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the layer's activations and the gradient of a loss there, by default a score's."""
        a = self.features(images).detach().requires_grad_()
        scores = self.head(a)
        total = scores[:, self.target].sum() if loss is None else loss(scores)
        [g] = torch.autograd.grad(total, a)
        return a.detach().double().numpy(), g.double().numpy()

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the explained score of images."""
        with torch.no_grad():
            found = self.model(torch.from_numpy(np.asarray(images, np.float32)))
        return found[:, self.target].double().numpy()


@cache
def seeded(name: str) -> Network:
    """Return a network, made once."""
    return Network(name)


@cache
def unfolded(name: str) -> Network:
    """Return the same network with its batch normalizations left in the file, made once."""
    preserve = torch.onnx.TrainingMode.PRESERVE
    return Network(name, do_constant_folding=False, training=preserve)


def scaled(maps: np.ndarray) -> np.ndarray:
    """Return maps rectified and brought to 0..1."""
    maps = np.maximum(maps, 0)
    maps = maps - maps.min(axis=(1, 2), keepdims=True)
    return maps / (1e-7 + maps.max(axis=(1, 2), keepdims=True))


def close(ours: np.ndarray, expected: np.ndarray, bound: float = 1e-3) -> None:
    """Compare to a share of the largest value."""
    scale = np.abs(expected).max()
    assert ours.shape == expected.shape and scale > 1e-6
    assert np.abs(ours - expected).max() <= bound * scale


def differs(network: Network, maps: np.ndarray) -> None:
    """Hold that maps are not simply Grad-CAM's."""
    assert np.abs(scaled(maps) - scaled(network.ours("grad-cam"))).max() > 0.05
