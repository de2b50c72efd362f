"""Three small transformers with seeded weights, written out so that their attention can be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from torch import nn

import onnxcam

from .seeded import export

SIZE, PATCH, WIDTH, HEADS, CLASSES = 24, 6, 12, 3, 5
GRID = SIZE // PATCH


class Rules:
    """Hooks at what a test may treat otherwise than the derivative; here they do nothing."""

    def activation(
        self, f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
    ) -> torch.Tensor:
        return f(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def deviation(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Norm(nn.Module):
    """LayerNorm, or as RMSNorm is written out."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.plain, self.scale = plain, nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.shift = nn.Parameter(torch.randn(WIDTH) * 0.2)
        self.rules: Rules | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain and self.rules is None:
            return nn.functional.layer_norm(x, (WIDTH,), self.scale, self.shift, 1e-5)
        if self.plain:
            x = x - x.mean(-1, keepdim=True)
        deviation = ((x**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        deviation = deviation if self.rules is None else self.rules.deviation(deviation)
        found = x / deviation * self.scale
        return found + self.shift if self.plain else found


class Block(nn.Module):
    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated, self.norm1, self.norm2 = gated, Norm(not gated), Norm(not gated)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, 2 * WIDTH) if gated else None
        self.rules = Rules()
        self.attention: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r = self.rules
        n, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = r.product(q @ k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5
        self.attention = scores.softmax(-1)
        mixed = r.product(self.attention @ v).transpose(1, 2).reshape(n, length, WIDTH)
        x = x + self.out(mixed)
        h = self.norm2(x)
        if self.gate is None:
            return x + self.down(r.activation(nn.functional.gelu, self.up(h)))
        opened = r.activation(nn.functional.silu, self.gate(h))
        return x + self.down(r.product(opened * self.up(h)))


class Vit(nn.Module):
    """Patches, perhaps a class token, blocks, a norm, a linear head."""

    def __init__(self, token: bool, gated: bool, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if token else None
        self.places = nn.Parameter(torch.randn(1, GRID**2 + token, WIDTH) * 0.5)
        self.blocks = nn.Sequential(*(Block(gated) for _ in range(depth)))
        self.norm, self.head = Norm(not gated), nn.Linear(WIDTH, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return self.read(self.blocks(x + self.places))

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of tokens after the last block."""
        x = self.norm(x)
        return self.head(x[:, 0] if self.token is not None else x.mean(dim=1))


KINDS = {"token": (True, False, 3), "mean": (False, False, 2), "gated": (True, True, 2)}


class Transformer:
    """A transformer, its file, two images."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(6)
        self.model = Vit(*KINDS[name]).eval()
        for module in self.model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=1.2 * module.weight[0].numel() ** -0.5)
                nn.init.normal_(module.bias, std=0.1)
        self.images = torch.randn(2, 3, SIZE, SIZE)
        with torch.no_grad():
            self.target = int(self.model(self.images).min(dim=0).values.argmax())
        self.path = Path(mkdtemp(prefix="seeded-")) / f"{name}.onnx"
        export(self.model, self.images, self.path)
        for block in self.model.blocks:
            block.attention = None  # of the export, which could not be copied

    def ours(self, method: str) -> np.ndarray:
        """Return signed maps ``[N, ...]``."""
        explainer = onnxcam.Explainer(self.path, method=method, preprocess="unit")
        found = explainer.explain_batch(self.images.numpy(), self.target)
        return np.stack([e.signed for [e] in found])


@cache
def transformer(name: str) -> Transformer:
    """Return a transformer, made once."""
    return Transformer(name)
