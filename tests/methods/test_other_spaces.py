"""Methods of many runs on signals, spectra and volumes, or why they are refused there."""

from __future__ import annotations

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import MethodError

from ..test_cases import CASES, arrays, case


def explained(name: str, method: str) -> onnxcam.Explanation:
    [given] = case(name)["inputs"]
    explainer = onnxcam.Explainer(CASES / f"{name}.onnx", method=method)
    [found] = explainer.explain(arrays(name)[f"input.{given}"][0])
    return found


@pytest.mark.parametrize(("name", "axes"), [("signal", 1), ("volume", 3)])
@pytest.mark.parametrize("method", ["feature-ablation:segments=8", "shapley:segments=8,samples=2"])
def test_superpixels_of_signals_and_volumes(name: str, axes: int, method: str) -> None:
    found = explained(name, method)
    assert found.signed.ndim == axes and 2 <= len(np.unique(found.signed)) <= 16


def test_sess_on_a_signal_lies_on_it() -> None:
    found = explained("signal", "sess:scales=3")
    assert found.signed.shape == found.given.shape[-1:] and found.signed.max() > 0


def test_what_has_other_axes_is_refused() -> None:
    with pytest.raises(MethodError, match="augmentation-smoothing in its place"):
        explained("stft-script", "sess:scales=2")
    assert explained("stft-script", "augmentation-smoothing").signed.ndim == 2  # the way out
    with pytest.raises(MethodError, match="rise takes any number"):
        explained("signal", "extremal-perturbation:steps=2")
    assert explained("signal", "rise:masks=20").signed.ndim == 1  # the way out
