"""Small detectors with the heads of well-known ones, written from their shapes; random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.SiLU())


class Features(nn.Module):
    """Three maps, of strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_down(3, 16), _down(16, 24), _down(24, 32))
        self.middle, self.coarse = _down(32, 32), _down(32, 32)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        middle = self.middle(fine)
        return [fine, middle, self.coarse(middle)]


def _cells(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Centres of cells ``[2, A]`` in cells, and their strides ``[1, A]``."""
    centres, strides = [], []
    for one, stride in zip(maps, STRIDES, strict=True):
        height, width = one.shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack([x, y]).view(2, -1) + 0.5)
        strides.append(torch.full((1, height * width), float(stride)))
    return torch.cat(centres, 1), torch.cat(strides, 1)


class Anchorless(nn.Module):
    """``[N, 4 + C, A]``: distances as the mean of a distribution, one box a cell, no objectness."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = Features()

        def branch(last: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.SiLU(), nn.Conv2d(32, last, 1))

        self.boxes = nn.ModuleList([branch(64) for _ in STRIDES])
        self.scores = nn.ModuleList([branch(classes) for _ in STRIDES])
        self.mean = nn.Conv2d(16, 1, 1, bias=False)
        self.mean.weight.data[:] = torch.arange(16.0).view(1, 16, 1, 1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Corners ``[N, 4, A]`` in pixels, and probabilities ``[N, C, A]``."""
        maps = self.features(x)
        centres, strides = _cells(maps)
        spread = torch.cat([b(m).flatten(2) for b, m in zip(self.boxes, maps, strict=True)], 2)
        logits = torch.cat([s(m).flatten(2) for s, m in zip(self.scores, maps, strict=True)], 2)
        n, _, a = spread.shape
        distances = self.mean(spread.view(n, 4, 16, a).transpose(2, 1).softmax(1)).view(n, 4, a)
        low, high = distances.chunk(2, 1)
        corners = torch.cat([centres - low, centres + high], 1) * strides
        return corners, (logits * 6).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        corners, shares = self.parts(x)
        low, high = corners.chunk(2, 1)
        return torch.cat([(low + high) / 2, high - low, shares], 1)


class Best(Anchorless):
    """``[N, 50, 6]``: the best boxes, scores and classes, without suppression."""

    def forward(self, x: Tensor) -> Tensor:
        corners, shares = (p.transpose(1, 2) for p in self.parts(x))
        classes = shares.shape[2]
        _, first = torch.topk(shares.amax(-1), 50, dim=-1)
        corners = corners.gather(1, first[..., None].repeat(1, 1, 4))
        shares = shares.gather(1, first[..., None].repeat(1, 1, classes))
        best, place = torch.topk(shares.flatten(1), 50)
        labels = place % classes
        corners = corners.gather(1, (place // classes)[..., None].repeat(1, 1, 4))
        return torch.cat([corners, best[..., None], labels[..., None].float()], -1)


class Scaled(Anchorless):
    """Paddle's: corners ``[N, A, 4]`` divided by the photograph's scale; ``[N, C, A]``."""

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        corners, shares = self.parts(x)
        return corners.transpose(1, 2) / scale[:, [1, 0, 1, 0]][:, None], shares


class ChannelsLast(Anchorless):
    """TensorFlow's: bytes ``[N, H, W, 3]``; top, left, bottom, right in parts; ``[N, A, C]``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        corners, shares = self.parts(x.permute(0, 3, 1, 2).to(self.mean.weight.dtype) / 127.5 - 1)
        height, width = x.shape[1:3]
        size = torch.tensor([height, width, height, width])
        return corners.transpose(1, 2)[..., [1, 0, 3, 2]] / size, shares.transpose(1, 2)


class Anchored(nn.Module):
    """``[N, A, 5 + C]``: three boxes a cell, objectness, everything behind Sigmoid."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features, self.numbers = Features(), 5 + classes
        self.heads = nn.ModuleList([nn.Conv2d(32, 3 * self.numbers, 1) for _ in STRIDES])

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for one, head, stride in zip(self.features(x), self.heads, STRIDES, strict=True):
            n, _, h, w = one.shape
            p = (head(one) * 5).view(n, 3, self.numbers, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack([columns, rows], -1).view(1, 1, h, w, 2) - 0.5
            centre, size = (p[..., :2] * 2 + grid) * stride, (p[..., 2:4] * 2) ** 2 * 20
            found.append(torch.cat([centre, size, p[..., 4:]], -1).view(n, -1, self.numbers))
        return torch.cat(found, 1)


class Queries(nn.Module):
    """Logits ``[N, Q, C + 1]``, the last class for nothing, and boxes ``[N, Q, 4]`` in 0..1."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.features = Features()
        layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.queries = nn.Parameter(torch.randn(20, 32) * 2)
        self.logits, self.boxes = nn.Linear(32, classes + 1), nn.Linear(32, 4)
        self.logits.bias.data[-1] += 0.3

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.features(x)[2].flatten(2).transpose(1, 2)
        read = self.decoder(self.queries[None].expand(len(x), -1, -1), tokens)
        return self.logits(read) * 3, self.boxes(read).sigmoid()
