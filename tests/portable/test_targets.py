"""Every kind of target that a portable model holds, against the Explainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.errors import LayerError, TargetError
from onnxcam.targets.weighted import Similarity

from ..conftest import DATA, runtime

CASES = DATA.parent / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")


def outputs(path: Path, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = runtime(path)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def check(case: str, targets: object, tmp_path: Path, **options: object) -> None:
    model = CASES / f"{case}.onnx"
    made = onnxcam.export(model, tmp_path / "made.onnx", targets=targets, **options)
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    explainer = onnxcam.Explainer(model, **options)
    name = made.plan.image.name
    images = np.load(CASES / f"{case}.npz")[f"input.{name}"]
    found = outputs(made.path, **{name: images})
    for n in range(len(images)):
        explanations = explainer.explain(images[n : n + 1], targets)
        assert found[made.names["scores"]].shape[1] == len(explanations)
        for t, one in enumerate(explanations):
            assert one.heatmap.max() == 1, "a map that says nothing checks nothing"
            score = found[made.names["scores"]][n, t]
            np.testing.assert_allclose(score, one.score, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["heatmap"][n, t], one.heatmap, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "targets"),
    [
        ("segmentation", "region:1"),
        ("segmentation", ["logits[2,:,:]:mean", "logits[0,:5,3]:max"]),
        ("segmentation", "logits[1,3,4]"),
        ("embedding", Similarity(np.arange(64) - 20.0)),
        ("embedding", ["embedding[0]", "embedding[5]"]),
        ("crnn", ["step:6", "step:2=3", "tokens:1,2,3"]),
        ("ending-handwritten", ["best of 0,1,2", "1 - 2"]),
        ("two-heads", ["rank:2", "1"]),
        ("signal", "rank:1"),
        ("volume", "rank:1"),
        ("channels-last-swin-script", "top:2"),
    ],
)
def test_fixed_targets(case, targets, tmp_path) -> None:
    check(case, targets, tmp_path)


@pytest.mark.parametrize("method", ["saliency", "guided-backprop"])
@pytest.mark.parametrize("case", ["channels-last-convnext-script", "signal", "volume"])
def test_maps_at_the_input(case, method, tmp_path) -> None:
    check(case, "rank:1", tmp_path, method=method)


def test_what_a_run_only_tells_is_refused(tmp_path) -> None:
    out = tmp_path / "no.onnx"
    with pytest.raises(TargetError, match="no file can hold it"):
        onnxcam.export(CASES / "crnn.onnx", out, targets="text/0:1,2")
    with pytest.raises(TargetError, match="several kinds or tensors .'region:1' and"):
        onnxcam.export(CASES / "segmentation.onnx", out, targets=["region:1", "logits[1,3,4]"])
    both = ["2 - 1", 2]
    with pytest.raises(TargetError, match="'2 - 1' and class 2.*write a file for each"):
        onnxcam.export(CASES / "boxes-first.onnx", out, targets=both)
    for one in both:
        onnxcam.export(CASES / "boxes-first.onnx", tmp_path / f"{one}.onnx", targets=one)
    with pytest.raises(LayerError, match="--layer '/Mul_3_output_0'"):
        onnxcam.export(CASES / "detector-yolo8.onnx", out, raw=True)
    onnxcam.export(CASES / "detector-yolo8.onnx", out, raw=True, layer="/Mul_3_output_0")


@pytest.mark.parametrize("case", ["detector-yolo8", "detector-yolo5", "detector-ssd", "nms"])
def test_rows_of_a_detector(case, tmp_path) -> None:
    model = CASES / f"{case}.onnx"
    made = onnxcam.export(model, tmp_path / "made.onnx", method="layer-cam")
    name = made.plan.image.name
    image = np.load(CASES / f"{case}.npz")[f"input.{name}"][:1]
    explanations = onnxcam.Explainer(model).explain(image)
    anchors = [e.detected.one.anchor for e in explanations]
    assert len(anchors) >= 2
    fed = {made.names["target"]: np.array([[*anchors, -1]])}
    found = outputs(made.path, **{name: image}, **fed)
    assert found[made.names["targets"]][0].tolist() == [*anchors, anchors[0]]
    for t, one in enumerate(explanations):
        np.testing.assert_allclose(found["heatmap"][0, t], one.heatmap, atol=1e-4)
        np.testing.assert_allclose(found[made.names["scores"]][0, t], one.score, rtol=1e-5)
    for seen in explanations[0].detected.every:
        row = (0, seen.anchor)
        if case == "nms" and found[made.names["classes"]][row] != seen.index:
            continue  # with a NonMaxSuppression of its own a row may be of several classes
        assert found[made.names["classes"]][row] == seen.index
        np.testing.assert_allclose(
            found[made.names["confidences"]][row], seen.probability, atol=1e-6
        )
        box = found[made.names["boxes"]][row]
        height, width = explanations[0].geometry.size
        want = np.zeros(4) if seen.box is None else seen.box
        np.testing.assert_allclose(np.clip(box, 0, [width, height] * 2), want, atol=1e-3)
