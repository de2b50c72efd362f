"""Several layers: a map each, one map of several, a sweep."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import EngineError, LayerError, MethodError, PictureError
from onnxcam.kernels import View
from onnxcam.kernels.reference import upsample
from onnxcam.layers import read_layers

from .conftest import parse
from .methods.networks import IMAGES, network, weights
from .test_cases import CASES, case
from .test_cases import pytestmark as with_cases

LAYERS = ["r3", "p1", "r1"]


@pytest.fixture
def path(save):
    return save(network("dense"))


def maps_of(path, layer, method="grad-cam", targets=(1, 3), **options):
    explainer = onnxcam.Explainer(path, layer=layer, method=method, preprocess="unit", **options)
    return explainer.explain_batch(IMAGES, list(targets))


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "eigen-cam", "ablation-cam"])
def test_layers_of_one_run_are_those_of_runs_of_their_own(path, method) -> None:
    alone = {layer: maps_of(path, layer, method) for layer in LAYERS}
    for n, found in enumerate(maps_of(path, LAYERS, method)):
        assert [(e.layer, e.target) for e in found] == [(la, t) for la in LAYERS for t in (1, 3)]
        for one, other in zip(found, [e for la in LAYERS for e in alone[la][n]], strict=True):
            assert one.layers == (one.layer,) and one.channels == other.channels
            np.testing.assert_allclose(
                one.signed, other.signed, atol=1e-5 * np.abs(other.signed).max()
            )


def test_several_methods_and_layers_stand_in_order(path) -> None:
    found = maps_of(path, ["r3", "max:r1,p1"], ["grad-cam", "layer-cam"], targets=[0])[0]
    assert [(e.layer, e.method) for e in found] == [
        (layer, method) for layer in ("r3", "max:r1,p1") for method in ("grad-cam", "layer-cam")
    ]


@pytest.mark.parametrize(("how", "join"), [("mean", np.mean), ("max", np.max)])
def test_several_maps_become_one(path, how, join) -> None:
    """Each scaled to 0..1 at the input's size, by the formula."""
    singles = {layer: maps_of(path, layer) for layer in LAYERS}
    for n, found in enumerate(maps_of(path, f"{how}:{','.join(LAYERS)}")):
        for t, one in enumerate(found):
            scaled = []
            for layer in LAYERS:
                raw = np.maximum(singles[layer][n][t].signed.astype(float), 0)
                raw = (raw - raw.min()) / (np.ptp(raw) or 1)
                scaled.append(upsample(raw.astype("f"), View.whole((12, 12), raw.shape)))
            expected = join(np.stack(scaled), axis=0)
            assert one.signed.shape == (12, 12) and one.layers == tuple(LAYERS)
            assert one.layer == f"{how}:r3,p1,r1" and one.channels is None
            np.testing.assert_allclose(one.signed, expected, atol=1e-5)
            assert expected.max() > 0.2 and np.abs(expected - scaled[0]).max() > 0.1


def test_a_map_that_says_nothing_adds_nothing(save) -> None:
    """Where one of two maps is zero, the other is what is left; where both are, it is said."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,12,12] image) => (float[N,4] scores) {
            c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
            r1 = Relu(c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
            r2 = Relu(c2)
            g = GlobalAveragePool(r2)
            h = GlobalAveragePool(r1)
            both = Concat <axis = 1> (g, h)
            f = Flatten(both)
            scores = Gemm <transB = 1> (f, w3)
        }
        """,
        {**weights(w1=(5, 3, 3, 3), b1=(5,), w2=(6, 5, 3, 3), b2=(6,)), "w3": dead_rows()},
    )
    path = save(model)
    [one] = maps_of(path, "mean:r1,r2", targets=[0])[0]
    [alone] = maps_of(path, "r1", targets=[0])[0]
    assert one.note == "" and np.allclose(one.heatmap, scaled_heatmap(alone), atol=1e-5)
    [none] = maps_of(path, "mean:r1,r2", targets=[1])[0]
    assert none.note == "zero" and not none.signed.any()


def dead_rows() -> np.ndarray:
    rows = np.random.default_rng(2).normal(size=(4, 11)).astype("f")
    rows[0, :6] = 0  # class 0 does not read the second layer
    rows[1] = 0
    return rows


def scaled_heatmap(explanation) -> np.ndarray:
    raw = explanation.raw - explanation.raw.min()
    return raw / raw.max()


def test_a_sweep_goes_from_deep_to_shallow(path) -> None:
    explainer = onnxcam.Explainer(path, layer="sweep", preprocess="unit")
    assert [layer.name for layer in explainer.plan.layers] == ["r3", "r2", "r1"]
    found = explainer.explain_batch(IMAGES, 2)
    for layer in ("r3", "r2", "r1"):
        for one, other in zip(found, maps_of(path, layer, targets=[2]), strict=True):
            [mine] = [e for e in one if e.layer == layer]
            scale = np.abs(other[0].signed).max()
            np.testing.assert_allclose(mine.signed, other[0].signed, atol=1e-5 * scale)


@with_cases
def test_a_sweep_of_a_transformer_takes_what_each_attention_reads() -> None:
    path, [want] = CASES / "tokens-vit.onnx", case("tokens-vit")["wants"]
    explainer = onnxcam.Explainer(path, layer="sweep", preprocess="unit")
    names = [layer.name for layer in explainer.plan.layers]
    assert names[0] == f"{want['layer']}:maps"
    assert [n.split("/")[1] for n in names] == ["blocks.1", "blocks.0", "patches"]
    found = explainer.explain(CASES / "square.png", 1)
    assert [f.layer for f in found] == names
    assert {f.signed.shape for f in found} == {tuple(want["grid"])}


def test_a_long_sweep_is_picked_evenly(save) -> None:
    count = 21
    body = "".join(
        f"c{i} = Conv <pads = [1, 1, 1, 1]> (r{i}, w, b)\n r{i + 1} = Relu(c{i})\n"
        for i in range(1, count)
    )
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,12,12] image) => (float[N,4] scores) {{
            c0 = Conv <pads = [1, 1, 1, 1]> (image, w0, b)
            r1 = Relu(c0)
            {body}
            g = GlobalAveragePool(r{count})
            f = Flatten(g)
            scores = Gemm <transB = 1> (f, wl)
        }}
        """,
        weights(w0=(4, 3, 3, 3), b=(4,), w=(4, 4, 3, 3), wl=(4, 4)),
    )
    explainer = onnxcam.Explainer(save(model), layer="sweep", preprocess="unit")
    names = [layer.name for layer in explainer.plan.layers]
    places = [int(name[1:]) for name in names]
    assert len(names) == 8 and places[0] == count and places[-1] == 1
    assert {a - b for a, b in pairwise(places)} <= {2, 3}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ([], "the list is empty"),
        (["sweep", "r1"], "stands alone"),
        (["r3", 0], "'r3' and '0' are one tensor, 'r3'"),
        ("mean:r3,auto", "one tensor, 'r3'"),
        (["r3", "nowhere"], "layer 'nowhere': no such tensor"),
    ],
)
def test_wrong_layers(path, layer, message) -> None:
    with pytest.raises(LayerError, match=message):
        onnxcam.Explainer(path, layer=layer, preprocess="unit")


def test_a_name_like_a_group_of_one_is_a_name() -> None:
    assert read_layers("mean:0").wanted == ("mean:0",)
    assert read_layers("mean: a, b").wanted == ("a", "b")
    assert read_layers(["mean:a,b", "b"]).groups(2)[1].places == (1,)


def test_maps_at_the_input_take_one_layer(path) -> None:
    with pytest.raises(MethodError, match="'saliency'.* --layer auto"):
        onnxcam.Explainer(path, layer=["r1", "r3"], method="saliency", preprocess="unit")
    onnxcam.Explainer(path, layer="auto", method="saliency", preprocess="unit")


def test_a_contact_sheet(path, save, tmp_path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)).save(photo)
    explainer = onnxcam.Explainer(path, layer=["r3", "r1"], preprocess="unit")
    found = explainer.explain(photo, 1)
    picture = onnxcam.contact_sheet(found)
    assert picture.width == 2 * 320 + 8 and picture.height > 240
    left = found[0].overlay().resize((320, 240), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(picture)[:240, :320], np.asarray(left))
    with pytest.raises(PictureError, match="the list is empty"):
        onnxcam.contact_sheet([])
    [result] = onnxcam.explain_files(explainer, [photo], 1, out=tmp_path / "out", format="png")
    assert (
        result.sheets == ["photo-1-layers.png"] and (tmp_path / "out" / result.sheets[0]).exists()
    )
    document = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert [layer["name"] for layer in document["model"]["layers"]] == ["r3", "r1"]
    records = document["images"][0]["explanations"]
    assert [r["layers"] for r in records] == [["r3"], ["r1"]]
    assert document["images"][0]["sheets"] == result.sheets


def test_the_other_engine_takes_one(path) -> None:
    pytest.importorskip("onnxruntime.training")
    with pytest.raises(EngineError, match="takes one layer"):
        onnxcam.Explainer(path, layer=["r1", "r3"], engine="ort", preprocess="unit")
