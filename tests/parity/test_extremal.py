"""extremal-perturbation against TorchRay, the authors' code.

Both begin with cells at random here. Where they begin with ones, as they do by themselves, many
values of the mask are equal, and how rounding sorts them decides the next steps.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
peer = pytest.importorskip(
    "torchray.attribution.extremal_perturbation", reason="TorchRay is not installed"
)

from onnxcam.methods.extremal import SmoothMasks  # noqa: E402

from .seeded import NETWORKS, close, seeded  # noqa: E402

START = np.random.default_rng(0).uniform(0.2, 0.9, (6, 6))


def begun() -> torch.Tensor:
    return torch.from_numpy(START[None, None].astype("f"))  # theirs works in place


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_torchrays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ones = seeded(name), torch.ones
    monkeypatch.setattr(SmoothMasks, "first", lambda _: START)
    ours = network.ours("extremal-perturbation:area=0.2,steps=30,cell=4,sigma=8")
    monkeypatch.setattr(torch, "ones", lambda *n: begun() if len(n) == 4 else ones(*n))
    for one, image in zip(ours, network.images, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, _ = peer.extremal_perturbation(
                network.model, image[None], network.target, [0.2], max_iter=30, step=4, sigma=8
            )
        close(one, expected[0, 0].numpy())
    assert np.abs(ours[0] - ours[1]).max() > 0.05
