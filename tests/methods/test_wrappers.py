"""Methods around others, by their name."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.errors import MethodError
from onnxcam.methods.registry import find_method

from .networks import IMAGES, explain, network


def test_parameters_are_those_of_the_method_inside(save) -> None:
    path = save(network("dense"))
    [plain], [most] = (
        explain(path, f"eigen-smoothing@grad-cam{options}", IMAGES[:1], 1, layer="r2")[0]
        for options in ("", ":max=1")
    )
    assert most.method == "eigen-smoothing@grad-cam:max=1"
    assert np.abs(plain.signed - most.signed).max() > 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("smoothing@grad-cam", "eigen-smoothing, augmentation-smoothing, sess do"),
        ("eigen-smoothing@saliency", "eigen-smoothing@grad-cam is one"),
        ("augmentation-smoothing@ablation-cam", "augmentation-smoothing@grad-cam is one"),
        ("sess@rise", "sess@grad-cam is one"),
        ("eigen-smoothing@gradcam", "Nearest: grad-cam"),
        ("eigen-smoothing@grad-cam:size=3", "no parameter 'size'"),
    ],
)
def test_what_they_do_not_go_around(method: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        find_method(method)
    assert find_method("augmentation-smoothing@grad-cam").drive is not None  # the way out


def test_a_sum_is_needed_for_its_parts(save) -> None:
    path = save(network("dense"))
    with pytest.raises(MethodError, match="grad-cam and layer-cam are"):
        explain(path, "eigen-smoothing@grad-cam-elementwise", IMAGES[:1], layer="r2")
