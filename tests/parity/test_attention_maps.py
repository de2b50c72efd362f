"""Maps of attention against slow implementations on transformers written out."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .seeded import close  # noqa: E402
from .vits import GRID, KINDS, Transformer, transformer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Attention mixes")


@pytest.fixture(params=KINDS)
def vit(request) -> Transformer:
    return transformer(request.param)


def read(vit: Transformer, rolled: torch.Tensor) -> np.ndarray:
    """Return the patches' part of what the class token, or the mean token, is made of."""
    token = vit.model.token is not None
    row = rolled[:, 0, 1:] if token else rolled.mean(dim=1)
    return row.detach().numpy().reshape(-1, GRID, GRID)


def attentions(vit: Transformer) -> tuple[torch.Tensor, list[torch.Tensor]]:
    scores = vit.model(vit.images)
    return scores[:, vit.target].sum(), [b.attention for b in vit.model.blocks]


def test_rollout_multiplies_attention(vit: Transformer) -> None:
    _, found = attentions(vit)
    eye = torch.eye(found[0].shape[-1])
    rolled = eye.expand(len(vit.images), -1, -1)
    for a in found:
        mixed = (a.mean(dim=1) + eye) / 2
        rolled = mixed / mixed.sum(dim=-1, keepdim=True) @ rolled
    close(vit.ours("attention-rollout"), read(vit, rolled))


def test_attention_gradient_is_chefers(vit: Transformer) -> None:
    score, found = attentions(vit)
    gradients = torch.autograd.grad(score, found)
    rolled = torch.eye(found[0].shape[-1]).expand(len(vit.images), -1, -1)
    for a, g in zip(found, gradients, strict=True):
        rolled = rolled + (a * g).clamp(min=0).mean(dim=1) @ rolled
    ours, rollout = vit.ours("attention-gradient"), vit.ours("attention-rollout")
    close(ours, read(vit, rolled))
    assert np.abs(ours / ours.max() - rollout / rollout.max()).max() > 0.05


def test_le_grad_reads_the_score_from_every_block(vit: Transformer) -> None:
    model = vit.model
    x = model.patches(vit.images).flatten(2).transpose(1, 2)
    if model.token is not None:
        x = torch.cat([model.token.expand(len(x), -1, -1), x], dim=1)
    x, total = x + model.places, 0
    for block in model.blocks:
        x = block(x)
        score = model.read(x)[:, vit.target].sum()
        [g] = torch.autograd.grad(score, block.attention, retain_graph=True)
        total = total + g.clamp(min=0).mean(dim=(1, 2))
    total = total / len(model.blocks)
    patches = total[:, 1:] if model.token is not None else total
    close(vit.ours("le-grad"), patches.numpy().reshape(-1, GRID, GRID))


def test_a_network_without_tokens_is_refused() -> None:
    from onnxcam.errors import MethodError

    from .seeded import seeded

    with pytest.raises(MethodError, match=r"attn-lrp and grad-cam take other networks"):
        seeded("plain").ours("attention-rollout")
    assert seeded("plain").ours("attn-lrp").any()
