"""extremal-perturbation against TorchRay, the authors' code.

By hand, with 'pip install --no-deps torchray==1.0.0.2': its licence, CC BY-NC, is not everybody's.

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

import onnxcam  # noqa: E402
from onnxcam.methods.extremal import SmoothMasks  # noqa: E402

from .seeded import NETWORKS, close, seeded  # noqa: E402

START = np.random.default_rng(0).uniform(0.5, 0.6, (6, 6))


def begun() -> torch.Tensor:
    return torch.from_numpy(START[None, None].astype("f"))  # theirs works in place


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_torchrays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ones = seeded(name), torch.ones
    images = 400 * network.images  # whose scores weigh as much as the area
    monkeypatch.setattr(SmoothMasks, "first", lambda _: START)
    method = "extremal-perturbation:area=0.2,steps=15,cell=4,sigma=8"
    explainer = onnxcam.Explainer(network.path, method=method, preprocess="unit")
    found = explainer.explain_batch(images.numpy(), network.target)
    ours = np.stack([e.signed for [e] in found])
    monkeypatch.setattr(torch, "ones", lambda *n: begun() if len(n) == 4 else ones(*n))
    for one, image in zip(ours, images, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, _ = peer.extremal_perturbation(
                network.model, image[None], network.target, [0.2], max_iter=15, step=4, sigma=8
            )
        close(one, expected[0, 0].numpy())
    assert np.abs(ours[0] - ours[1]).max() > 0.05
