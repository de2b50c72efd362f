"""Methods around others, by their name."""

from __future__ import annotations

import numpy as np
import pytest

import onnxcam
from onnxcam.compare.sides import ModelSide
from onnxcam.errors import CompareError, LayerError, MethodError
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
        ("smoothing@grad-cam", "sess, refine-cam, eigen-smoothing, augmentation-smoothing do"),
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


def test_refine_cam_takes_the_last_layer_of_each_size(save) -> None:
    """``r1`` is 12x12, ``r2`` and ``r3`` are 6x6; another method beside it takes the default."""
    path = save(network("dense"))
    ways = ["refine-cam", "layer-cam", "refine-cam@layer-cam"]
    plain, refined, other = explain(path, ways, IMAGES[:2], [1, 3])[1][::2]
    assert [e.method for e in (plain, refined, other)] == [ways[1], ways[0], ways[2]]
    assert plain.layer == "r3" and refined.layers == other.layers == ("r3", "r1")
    for method, found in (("grad-cam++", refined), ("layer-cam", other)):
        [expected] = explain(path, method, IMAGES[1:2], 1, layer="product:r3,r1")[0]
        np.testing.assert_allclose(found.signed, expected.signed, rtol=1e-4, atol=1e-6)
        [named] = explain(path, f"refine-cam@{method}", IMAGES[1:2], 1, layer=["r3", "r1"])[0]
        np.testing.assert_allclose(found.signed, named.signed, rtol=1e-4, atol=1e-6)
    [saliency, _] = explain(path, ["saliency", "refine-cam"], IMAGES[1:2], 1)[0]
    assert saliency.space == "input" and saliency.signed.any()
    [cam, _] = explain(save(network(), "pooled.onnx"), ["cam", "refine-cam"], IMAGES[:1], 1)[0]
    assert cam.layer == "r3"  # the only one that has such a map


def test_one_layer_cannot_be_refined(save, tmp_path) -> None:
    path = save(network("dense"))
    with pytest.raises(LayerError, match="joins the maps of several layers, and there is one"):
        explain(path, "refine-cam", IMAGES[:1], 1, layer="r2")
    for way_out in (["-2", "0"], "sweep"):
        assert explain(path, "refine-cam", IMAGES[:1], 1, layer=way_out)[0][0].signed.any()
    assert explain(path, "grad-cam++", IMAGES[:1], 1, layer="r2")[0][0].signed.any()
    with pytest.raises(MethodError, match="is finished outside the graph"):
        onnxcam.export(path, tmp_path / "portable.onnx", method="refine-cam")
    one = onnxcam.Explainer(path, method="refine-cam", layer="r2", preprocess="unit")
    with pytest.raises(CompareError, match="one method of one run and layer"):
        ModelSide(one)
