"""Targets at places, held by a portable model: detections by number, masks, pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import TargetError
from onnxcam.targets.pixels import Masked

from ..conftest import DATA
from .test_targets import check, outputs

CASES = DATA.parent / "cases"
SQUASH = {"resize": "squash", "divide": 255.0, "mean": [0.5], "std": [0.25]}
pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")


def image_of(case: str, name: str) -> np.ndarray:
    return np.load(CASES / f"{case}.npz")[f"input.{name}"]


def photograph(height: int = 50, width: int = 90) -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (height // 10, width // 10, 3))
    return np.repeat(np.repeat(coarse, 10, 0), 10, 1).astype(np.uint8)


@pytest.mark.parametrize(
    ("case", "targets"),
    [
        ("detector-yolo8", ["box:0", "box:1", "box:7", "box:3/2", "box:1/0", "box:@15,40"]),
        ("detector-yolo5", ["box:1", "box:0/1", "box:@30,30"]),
        ("detector-ssd", ["box:2", "box:3/1"]),  # offsets: no boxes, so none is left out
        ("nms", ["box:1", "box:3/1", "box:@45,35", "box:1"]),
    ],
)
def test_detections_by_number(case, targets, tmp_path) -> None:
    model = CASES / f"{case}.onnx"
    made = onnxcam.export(model, tmp_path / "m.onnx", targets=targets, method="layer-cam")
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    image = image_of(case, made.plan.image.name)
    found = outputs(made.path, **{made.plan.image.name: image})
    for t, one in enumerate(onnxcam.Explainer(model, method="layer-cam").explain(image, targets)):
        assert found[made.names["targets"]][0, t] == one.detected.one.anchor
        np.testing.assert_allclose(found[made.names["scores"]][0, t], one.score, rtol=1e-4)
        assert one.heatmap.max() == 1, "a map that says nothing checks nothing"
        np.testing.assert_allclose(found["heatmap"][0, t], one.heatmap, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "there", "missing"),
    [
        ("detector-yolo8", "box:3", "box:299"),
        ("nms-one", "box:0", "box:1"),
        ("nms", "box:1", "box:60"),
    ],
)
def test_a_detection_that_is_not_there_has_no_map(case, there, missing, tmp_path) -> None:
    model = CASES / f"{case}.onnx"
    made = onnxcam.export(model, tmp_path / "m.onnx", targets=[there, missing])
    name = made.plan.image.name
    image = image_of(case, name)
    found = outputs(made.path, **{name: image})
    with pytest.raises(TargetError):
        onnxcam.Explainer(model).explain(image, missing)
    assert found[made.names["targets"]][0, 0] >= 0 and found[made.names["targets"]][0, 1] == -1
    assert found[made.names["scores"]][0, 1] == 0
    assert found["heatmap"][0, 0].max() == 1 and not found["heatmap"][0, 1].any()


@pytest.mark.parametrize("fp16", [False, True])
def test_a_box_at_a_point_of_the_photograph(tmp_path, fp16) -> None:
    model, photo = CASES / "detector-yolo5.onnx", photograph()
    card = {**SQUASH, "resize": "letterbox"}
    explainer = onnxcam.Explainer(model, preprocess=card)
    seen = explainer.explain(photo)[0].detected.every
    left, top, right, bottom = seen[1].box
    target = f"box:@{int(left + right) // 2},{int(top + bottom) // 2}"
    made = onnxcam.export(
        model, tmp_path / "m.onnx", targets=target, preprocess=card, with_preprocessing=True,
        fp16=fp16,
    )  # fmt: skip
    [one], found = explainer.explain(photo, target), outputs(made.path, photo=photo)
    assert found[made.names["targets"]][0, 0] == one.detected.one.anchor
    assert np.corrcoef(found["heatmap"].ravel(), one.heatmap.ravel())[0, 1] > 0.999
    small = outputs(made.path, photo=photo[:20, :30])  # it has no such pixel
    assert small[made.names["targets"]][0, 0] == -1 and not small["heatmap"].any()


def mask_file(folder: Path, mask: np.ndarray) -> Path:
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    return folder / "mask.png"


def test_masks_and_pixels_of_the_input(tmp_path) -> None:
    height, width = onnxcam.Explainer(CASES / "segmentation.onnx").plan.image.space
    mask = np.zeros((height, width), bool)
    mask[3:17, 5:22] = True
    file = mask_file(tmp_path, mask)
    targets = [f"region:1@{file}", Masked(~mask, 0), "region:1@7,9", "region:@20,4", "region:1"]
    check("segmentation", targets, tmp_path)


@pytest.mark.parametrize("resize", ["squash", "letterbox", "shorter"])
def test_masks_and_pixels_of_the_photograph(resize, tmp_path) -> None:
    model, photo = CASES / "segmentation.onnx", photograph()
    mask = np.zeros(photo.shape[:2], bool)
    mask[8:31, 20:62] = True
    targets = [f"region:1@{mask_file(tmp_path, mask)}", "region:2@40,25", "region:@33,12"]
    card = {**SQUASH, "resize": resize}
    made = onnxcam.export(
        model, tmp_path / "m.onnx", targets=targets, preprocess=card, with_preprocessing=True
    )
    [taken] = [i for i in onnx.load(made.path).graph.input if i.name == "photo"]
    assert [d.dim_value for d in taken.type.tensor_type.shape.dim] == [*photo.shape]
    found = outputs(made.path, photo=photo)
    explained = onnxcam.Explainer(model, preprocess=card).explain(photo, targets)
    for t, one in enumerate(explained):
        np.testing.assert_allclose(found[made.names["scores"]][0, t], one.score, rtol=2e-2)
        assert np.corrcoef(found["heatmap"][0, t].ravel(), one.heatmap.ravel())[0, 1] > 0.999


def test_places_that_no_file_can_hold(tmp_path) -> None:
    model, out = CASES / "segmentation.onnx", tmp_path / "no.onnx"
    height, width = onnxcam.Explainer(model).plan.image.space
    small, other = np.ones((height - 1, width), bool), np.ones((9, 9), bool)
    with pytest.raises(TargetError, match=f"as large as the input, {height}x{width}, and this is"):
        onnxcam.export(model, out, targets=Masked(small, 1))
    with pytest.raises(TargetError, match=f"X counts the input's pixels, from 0 to {width - 1}"):
        onnxcam.export(model, out, targets=f"region:1@{width},0")
    prepared = {"preprocess": SQUASH, "with_preprocessing": True}
    with pytest.raises(TargetError, match="have the sizes .* Write a file for each"):
        onnxcam.export(model, out, targets=[Masked(small, 1), Masked(other, 1)], **prepared)
    onnxcam.export(model, out, targets=Masked(small, 1), **prepared)  # each by itself goes
    for target in ("region:99@1,1", "region:99"):
        with pytest.raises(TargetError, match="out of range"):
            onnxcam.export(model, out, targets=target, overwrite=True)
    with pytest.raises(TargetError, match="at most 300 detections"):
        onnxcam.export(CASES / "detector-yolo8.onnx", out, targets="box:300", overwrite=True)
    with pytest.raises(TargetError, match="out of range: the detector's classes"):
        onnxcam.export(CASES / "detector-yolo8.onnx", out, targets="box:77/0", overwrite=True)


def test_boxes_that_only_the_run_tells_have_a_way_out(tmp_path) -> None:
    model = onnx.load(CASES / "detector-yolo8.onnx")
    [image] = model.graph.input
    for place, name in ((2, "H"), (3, "W")):
        image.type.tensor_type.shape.dim[place].dim_param = name
    path, out = tmp_path / "any-size.onnx", tmp_path / "made.onnx"
    onnx.save(model, path)
    with pytest.raises(TargetError, match="box:0 and box:LABEL can be fixed.*takes any row"):
        onnxcam.export(path, out, targets="box:1")
    onnxcam.export(path, out, targets="box:0")
    assert onnxcam.export(path, out, overwrite=True).names["target"] == "target"
