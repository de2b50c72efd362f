"""What a stranger does first: an export of somebody's tool, a photograph, no card of one's own.

Labels, boxes and maps are held against what NumPy reads in the plain model's output.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam

from ..conftest import runtime, shared
from ..yolo import STRIDES, yolo

PHOTO = onnxcam.default_photograph()  # 451 by 300


def letterboxed(size: int) -> tuple[np.ndarray, list[float], list[int]]:
    """The photograph as Ultralytics fits it: the tensor; scales and offsets of columns and rows."""
    photo = Image.open(PHOTO).convert("RGB")
    photo_width, photo_height = photo.size
    width, height = (round(n * size / max(photo.size)) for n in photo.size)
    left, top = (size - width) // 2, (size - height) // 2
    whole = np.full((size, size, 3), 114, np.uint8)
    whole[top : top + height, left : left + width] = photo.resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return (
        whole.transpose(2, 0, 1)[None].astype(np.float32) / 255,
        [width / photo_width, height / photo_height],
        [left, top],
    )


def decoded(model: onnx.ModelProto) -> list[tuple[str, float, np.ndarray, int]]:
    """Label, score, corners in the photograph and anchor of every detection, the surest first."""
    names = ast.literal_eval({p.key: p.value for p in model.metadata_props}["names"])
    x, scales, offsets = letterboxed(96)
    rows = runtime(model).run(None, {"images": x})[0][0].T
    scores = rows[:, 4 : 4 + len(names)]
    best, sure = scores.argmax(1), scores.max(1)
    low, high = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    kept: list[int] = []
    for n in np.argsort(-sure, kind="stable"):
        same = [k for k in kept if best[k] == best[n]]
        shared_ = [
            np.clip(np.minimum(high[n], high[k]) - np.maximum(low[n], low[k]), 0, None).prod()
            for k in same
        ]
        area = (high - low).prod(1)
        over = [s / (area[n] + area[k] - s) for s, k in zip(shared_, same, strict=True)]
        if sure[n] > 0.25 and max(over, default=0) <= 0.5:
            kept.append(int(n))
    corners = (np.concatenate([low, high], 1) - offsets * 2) / (scales * 2)
    corners = np.clip(corners, 0, [451, 300] * 2)
    return [(names[best[k]], float(sure[k]), corners[k], k) for k in kept]


def layer_cam(model: onnx.ModelProto, anchor: int, index: int) -> np.ndarray:
    """``sum_k relu(G_k) A_k`` of a class's logit, from the weights of its branch, by hand."""
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    cells = [(96 // s) ** 2 for s in STRIDES]
    scale = int(anchor >= cells[0])
    row, column = divmod(anchor - cells[0] * scale, 96 // STRIDES[scale])
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    names = (f"p{scale}", f"c{scale}x")
    extended.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    maps, before = runtime(extended).run(list(names), {"images": letterboxed(96)[0]})
    passed = weights[f"c{scale}b"][index, :, 0, 0] * (before[0, :, row, column] > 0)
    window = np.einsum("m,mkij->kij", passed, weights[f"c{scale}a"])
    gradient = np.zeros_like(np.pad(maps[0], ((0, 0), (1, 1), (1, 1))))
    gradient[:, row : row + 3, column : column + 3] = window
    return (np.maximum(gradient[:, 1:-1, 1:-1], 0) * maps[0]).sum(0)


def test_an_export_of_ultralytics_and_a_photograph(tmp_path: Path, call) -> None:
    """Of dynamic size, with metadata: labels, boxes and maps."""
    model = yolo()
    onnx.save(model, tmp_path / "best.onnx")
    arguments = [str(PHOTO), "-m", str(tmp_path / "best.onnx"), "-o", str(tmp_path / "out")]
    code, out, err = call("explain", *arguments, "--arrays")
    assert (code, err) == (0, "")
    right = decoded(model)
    assert len({r[0] for r in right}) > 1
    [image] = json.loads((tmp_path / "out" / "explanations.json").read_text("utf-8"))["images"]
    for n, record in enumerate(image["explanations"]):
        every = record["detections"]
        assert [d["label"] for d in every] == [r[0] for r in right]
        for d, (_, score, corners, anchor) in zip(every, right, strict=True):
            assert d["probability"] == pytest.approx(score, abs=1e-5) and d["anchor"] == anchor
            np.testing.assert_allclose(list(d["box"].values()), corners, atol=0.06)
        label, score, corners, anchor = right[n]
        assert f"box:{n}   {label:<24} {score:.2f}" in out
        assert record["score"] == pytest.approx(np.log(score / (1 - score)), abs=1e-4)
        with np.load(tmp_path / "out" / record["arrays"]) as arrays:
            wanted = layer_cam(model, anchor, record["detection"]["class"])
            np.testing.assert_allclose(arrays["signed"], wanted, atol=1e-4 * wanted.max())
        assert Image.open(tmp_path / "out" / record["overlay"]).size == (451, 300)
    assert n == 2


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_a_folder_of_hugging_face(tmp_path: Path, call, folder: str) -> None:
    """A real classifier, with the names and numbers in its two files alone."""
    model = shared("models", "mobilenetv2-torch-dynamo.onnx")
    names = shared("imagenet_classes.txt").read_text("utf-8").splitlines()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    place = tmp_path / "net" / folder
    place.mkdir(parents=True)
    (place / "model.onnx").symlink_to(model)
    config = {"id2label": {str(n): name for n, name in enumerate(names)}}
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    processor = {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(processor))

    options = [str(PHOTO), "-t", "top:3", "-o", str(tmp_path / "out")]
    code, _, err = call("explain", *options, "-m", str(tmp_path / "net"))
    assert code == 2 and f"Give the .onnx file itself: {place / 'model.onnx'}." in err
    code, out, err = call("explain", *options, "-m", str(place / "model.onnx"))
    assert (code, err) == (0, "")

    photo = Image.open(PHOTO).convert("RGB").resize((int(256 * 451 / 300), 256), 2)
    left, top = (photo.width - 224) // 2, 16
    pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), np.float64) / 255
    x = ((pixels - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    [scores] = runtime(model).run(None, {"input": x})
    [image] = json.loads((tmp_path / "out" / "explanations.json").read_text("utf-8"))["images"]
    for record, index in zip(image["explanations"], np.argsort(-scores[0])[:3], strict=True):
        assert (record["target"], record["label"]) == (index, names[index])
        assert record["score"] == pytest.approx(scores[0, index], abs=2e-3)
        assert names[index] in out
