"""Maps that are finished by kernels, where a GPU leaves weights and activations on the device.

Without a GPU: the same graph on the CPU provider; a session that pretends to be on a device; and,
with ``NUMBA_ENABLE_CUDASIM=1``, Numba's simulator in place of the device.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxcam
import onnxcam.finishing
import onnxcam.runner
from onnxcam.explanation import Explanation

from ..methods.networks import METHODS, network
from .test_session import Pretended

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
PHOTO = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8))
TARGETS = ["top:2", 3]


@pytest.fixture
def path(save) -> Path:
    return save(network("pooled"))


def explain(path: Path, method: str) -> list[Explanation]:
    return onnxcam.Explainer(path, method=method, preprocess="unit").explain(PHOTO, TARGETS)


def same(found: list[Explanation], expected: list[Explanation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.target, one.rank, one.score) == (other.target, other.rank, other.score)
        scale = np.abs(other.signed).max()
        assert one.signed.shape == other.signed.shape and scale > 0
        np.testing.assert_allclose(one.signed, other.signed, atol=2e-5 * scale)
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-4)
        a, b = (np.asarray(e.overlay()).astype(int) for e in (one, other))
        assert np.abs(a - b).max() <= 1 or one.space == "input"


@pytest.mark.skipif(SIMULATED, reason="the same without the simulator")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pretended", [False, True])
def test_kernels_give_what_the_graph_gives(
    path: Path, method: str, pretended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = explain(path, method)
    monkeypatch.setattr(onnxcam.runner, "kernels_on_device", lambda _: True)
    if pretended:
        monkeypatch.setattr(onnxcam.runner, "Session", Pretended)
    same(explain(path, method), expected)


def test_only_maps_come_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations and weights are outputs, and stay where they are."""
    monkeypatch.setattr(onnxcam.runner, "kernels_on_device", lambda _: True)
    monkeypatch.setattr(onnxcam.runner, "Session", Pretended)
    taken: list[str] = []

    class Watched(Pretended):
        def run(self, feeds, outputs=None):
            taken.extend(outputs)
            return super().run(feeds, outputs)

    monkeypatch.setattr(onnxcam.runner, "Session", Watched)
    explain(path, "grad-cam")
    assert taken == []  # run_on_device took them


@pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")
@pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "guided-grad-cam", "eigen-cam"])
def test_cuda_kernels_give_what_the_graph_gives(
    path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda

    expected = explain(path, method)
    placed = onnxcam.finishing._placed
    monkeypatch.setattr(onnxcam.runner, "kernels_on_device", lambda _: True)
    monkeypatch.setattr(onnxcam.runner, "Session", Pretended)
    monkeypatch.setattr(onnxcam.finishing, "_placed", lambda v: cuda.to_device(placed(v)))
    found = explain(path, method)
    assert (found[0].on_device is not None) == (method in ("grad-cam", "layer-cam"))
    same(found, expected)
