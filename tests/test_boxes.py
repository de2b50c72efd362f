"""Detections: recognised, listed, and explained."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam import cli
from onnxcam.errors import ScoreError, TargetError
from onnxcam.imaging.preprocess import Geometry
from onnxcam.surgeon.plan import DetectorFacts
from onnxcam.targets.detections import detections

from .conftest import parse, runtime
from .test_cases import CASES, PHOTO, arrays

HEADS = ["detector-yolo8", "detector-yolo5", "detector-ssd", "nms", "nms-one"]
# The scores' tensor, and the index of an anchor's class in it.
ELEMENTS = {
    "detector-yolo8": lambda a, c: f"output0[{4 + c},{a}]",
    "detector-ssd": lambda a, c: f"scores[{a},{c}]",
}


def explainer(model: Path | onnx.ModelProto, **options) -> onnxcam.Explainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxcam.Explainer(model, **{"preprocess": "unit", **options})


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
def test_a_box_is_its_classs_logit(name: str, method: str) -> None:
    made = explainer(CASES / f"{name}.onnx", method=method)
    for found in made.explain(PHOTO):
        one = found.detected.one
        element = ELEMENTS[name](one.anchor, one.index)
        [right] = explainer(made.path, method=method, layer=found.layer).explain(PHOTO, element)
        assert found.score == pytest.approx(right.score, rel=1e-5)
        atol = 1e-6 * np.abs(right.signed).max()
        np.testing.assert_allclose(found.signed, right.signed, atol=atol)
        assert found.note == "" and found.signed.shape in ((3, 4), (6, 8))


def test_objectness_times_class_is_a_sum_of_logarithms() -> None:
    """d log(p q) = (1 - p) d logit(p) + (1 - q) d logit(q), each explained by itself."""
    made = explainer(CASES / "detector-yolo5.onnx", method="grad-cam")
    [output] = runtime(made.path).run(None, {"image": arrays("detector-yolo5")["input.image"]})
    for found in made.explain(arrays("detector-yolo5")["input.image"][0]):
        one = found.detected.one
        places = (4, 5 + one.index)
        p = [output[0][one.anchor, i] for i in places]
        assert one.probability == pytest.approx(p[0] * p[1], rel=1e-5)
        assert found.score == pytest.approx(np.log(p[0] * p[1]), rel=1e-4)
        parts = explainer(made.path, method="grad-cam", layer=found.layer).explain(
            arrays("detector-yolo5")["input.image"][0],
            [f"output[{one.anchor},{i}]" for i in places],
        )
        right = (1 - p[0]) * parts[0].signed + (1 - p[1]) * parts[1].signed
        np.testing.assert_allclose(found.signed, right, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("name", ["nms", "nms-one"])
def test_what_the_models_own_suppression_leaves(name: str) -> None:
    """The same boxes, classes and scores as its outputs; and the map of the first of them."""
    made = explainer(CASES / f"{name}.onnx", method="grad-cam")
    x = arrays(name)["input.image"]
    outputs = runtime(made.path).run(None, {"image": x})
    given = dict(zip(("boxes", "labels", "scores"), outputs, strict=True))
    every = made.explain(x[0])[0].detected.every
    order = np.argsort(-given["scores"], kind="stable")
    assert len(every) == len(order)
    np.testing.assert_allclose([d.probability for d in every], given["scores"][order], rtol=1e-5)
    assert [d.index for d in every] == given["labels"][order].tolist()
    limits = [64, 48, 64, 48]
    boxes = np.clip(given["boxes"][order], 0, limits)
    np.testing.assert_allclose([d.box for d in every], boxes, atol=1e-3)
    first = int(np.flatnonzero(order == 0)[0])
    [found] = made.explain(x[0], f"box:{first}")
    [right] = explainer(made.path, method="grad-cam", layer=found.layer).explain(x[0], "scores[0]")
    np.testing.assert_allclose(found.signed, right.signed, atol=1e-5 * np.abs(right.signed).max())


def test_suppression_is_that_of_the_runtime() -> None:
    """Against ONNX Runtime's NonMaxSuppression, boxes of several classes at random."""
    rng = np.random.default_rng(3)
    count, classes = 60, 3
    corner = rng.uniform(0, 80, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1)
    scores = rng.uniform(0, 1, (count, classes))
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,60,4] b, float[1,3,60] s) => (int64[K,3] y) {
            y = NonMaxSuppression (b, s, most, overlap, least)
        }
        """,
        {
            "most": np.array([7], np.int64),
            "overlap": np.array([0.3], np.float32),
            "least": np.array([0.4], np.float32),
        },
    )
    feeds = {"b": boxes[None].astype(np.float32), "s": scores.T[None].astype(np.float32)}
    [right] = runtime(model).run(None, feeds)
    reading = DetectorFacts(False, False, classes, "", True, 0.4, 0.3, 7)
    values = np.concatenate([boxes, scores], axis=1)
    found = detections(values, reading, Geometry.identity(120, 120), None)
    expected = {(int(a), int(c)) for _, c, a in right}
    assert {(d.anchor, d.index) for d in found} == expected and len(found) == len(expected)


def fixed_boxes(output: str, extra: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A detector of 4 x 4 cells whose boxes are constants, of an image of 32 by 32 pixels."""
    rng = np.random.default_rng(5)
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,32,32] image) => ({output}) {{
            c = Conv <strides=[8,8], kernel_shape=[8,8]> (image, w)
            r = Relu (c)
            s = Conv (r, v)
            flat = Reshape (s, shape)
            p = Sigmoid (flat)
            zero = Mul (image, none)
            nothing = ReduceSum <keepdims=1> (zero)
            still = Reshape (nothing, one)
            boxes = Add (fixed, still)
            {output.partition("]")[2].strip()} = Concat <axis=1> (boxes, p)
        }}
        """,
        {
            "w": rng.normal(size=(6, 3, 8, 8)).astype(np.float32),
            "v": rng.normal(size=(2, 6, 1, 1)).astype(np.float32),
            "shape": np.array([1, 2, 16], np.int64),
            "none": np.zeros((), np.float32),
            "one": np.array([1, 1, 1], np.int64),
            **(extra or {}),
        },
    )


def ultralytics_style() -> onnx.ModelProto:
    """Boxes as centre and size, two classes, metadata as Ultralytics writes it."""
    y, x = np.mgrid[:4, :4].reshape(2, -1) * 8 + 4
    fixed = np.stack([x, y, np.full(16, 6), np.full(16, 4)]).astype(np.float32)[None]
    model = fixed_boxes("float[1,6,16] output0", {"fixed": fixed})
    metadata = {
        "task": "detect",
        "stride": "8",
        "imgsz": "[32, 32]",
        "names": "{0: 'cup', 1: 'hat'}",
        "author": "Ultralytics",
    }
    onnx.helper.set_model_props(model, metadata)
    return model


def test_boxes_are_in_the_photographs_own_pixels(tmp_path: Path) -> None:
    """Through the letterbox that the metadata says: a photograph of 64 by 128 is halved, twice."""
    photo = np.random.default_rng(7).integers(0, 256, (64, 128, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = onnxcam.Explainer(ultralytics_style())
    assert made.preprocess.resize == "letterbox" and made.labels == ("cup", "hat")
    found = made.explain(photo, None)
    assert found and all(e.method == "layer-cam" for e in found)
    every = found[0].detected.every
    for d in every:
        row, column = divmod(d.anchor, 4)
        x, y = column * 8 + 4, row * 8 + 4
        # The photograph lies in rows 8 to 24, a quarter of its size.
        edges = [(x - 3) * 4, (y - 2 - 8) * 4, (x + 3) * 4, (y + 2 - 8) * 4]
        np.testing.assert_allclose(d.box, np.clip(edges, 0, [128, 64, 128, 64]), atol=1e-3)
    best = every[0]
    middle = (int(best.box[0] + best.box[2]) // 2, int(best.box[1] + best.box[3]) // 2)
    inside = [
        d for d in every if d.box[0] <= middle[0] <= d.box[2] and d.box[1] <= middle[1] <= d.box[3]
    ]
    [at] = made.explain(photo, f"box:@{middle[0]},{middle[1]}")
    assert at.detected.one == inside[0]
    [named] = made.explain(photo, f"box:{best.label}")
    assert named.detected.one == best
    assert named.element == f"box:0 {best.label}"


def test_a_batch_is_its_images_and_five_boxes_one_run() -> None:
    x = np.random.default_rng(8).random((2, 3, 48, 64), np.float32)
    made = explainer(CASES / "detector-yolo8.onnx")
    both = made.explain_batch(x, [f"box:{n}" for n in range(5)])
    for one, found in zip(x, both, strict=True):
        for n, e in enumerate(found):
            [right] = made.explain(one, f"box:{n}")
            assert (e.element, e.layer) == (right.element, right.layer)
            np.testing.assert_allclose(
                e.signed, right.signed, atol=1e-5 * max(np.abs(right.signed).max(), 1e-3)
            )


def test_nothing_seen_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = ultralytics_style()
    # Scores far below 0 wherever the network sees anything.
    for weights in model.graph.initializer:
        if weights.name == "v":
            array = -10 * np.abs(onnx.numpy_helper.to_array(weights))
            weights.CopyFrom(onnx.numpy_helper.from_array(array, "v"))
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    made = onnxcam.Explainer(model, preprocess={"divide": 0.02})
    onnx.save(model, tmp_path / "m.onnx")
    image.save(tmp_path / "white.png")
    with np.errstate(over="ignore"):
        found = made.explain(image)
    assert found == []
    with pytest.raises(TargetError, match=r"target 'box:0': the image has 0 detections above 0.25"):
        made.explain(image, "box:0")


@pytest.mark.parametrize("end", ["Identity", "Softmax"])
def test_six_characters_are_no_boxes(end: str) -> None:
    """Scores of each character of a captcha, joined: [N, 6, 36], not 36 boxes of two classes."""
    rng = np.random.default_rng(15)
    heads = "".join(
        f"""
            h{n} = Gemm (flat, w{n})
            e{n} = {end} (h{n})
            u{n} = Unsqueeze (e{n}, one)
        """
        for n in range(6)
    )
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,16,16] image) => (float[N,6,36] characters) {{
            c = Conv (image, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            flat = Flatten (p)
            {heads}
            characters = Concat <axis=1> (u0, u1, u2, u3, u4, u5)
        }}
        """,
        {
            "w": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
            "one": np.array([1], np.int64),
            **{f"w{n}": rng.normal(size=(5, 36)).astype(np.float32) for n in range(6)},
        },
    )
    made = explainer(model)
    assert made.plan.detector is None
    with pytest.raises(ScoreError, match="not recognised as those of a detector"):
        made.explain(rng.random((3, 16, 16), np.float32), "box:0")


def test_what_is_wrong_is_told() -> None:
    made = explainer(CASES / "detector-yolo8.onnx")
    with pytest.raises(TargetError, match=r"target 'box:': write box:0, box:LABEL"):
        made.explain(PHOTO, "box:")
    with pytest.raises(TargetError, match=r"target 'box:99': the image has 60 detections"):
        made.explain(PHOTO, "box:99")
    with pytest.raises(TargetError, match="hat"):
        made.explain(PHOTO, "box:hat")
    with pytest.raises(ScoreError, match="the model is a detector.*-t box:0"):
        made.explain(PHOTO, 3)
    with pytest.raises(ScoreError, match="not recognised as those of a detector"):
        onnxcam.Explainer(onnxcam.default_model()).explain(onnxcam.default_photograph(), "box:0")


def test_at_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(ultralytics_style(), tmp_path / "yolo.onnx")
    photo = np.random.default_rng(7).integers(0, 256, (64, 128, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    every = onnxcam.Explainer(tmp_path / "yolo.onnx").explain(photo)[0].detected.every
    left, top, right, bottom = every[1].box
    x, y = int(left + right) // 2, int(top + bottom) // 2
    call = ["explain", str(tmp_path / "photo.png"), "-m", str(tmp_path / "yolo.onnx")]
    for options in (["--at", f"{x},{y}"], ["-t", f"box:{every[1].label}", "--at", f"{x},{y}"]):
        out = tmp_path / f"out{len(options)}"
        monkeypatch.setattr(sys, "argv", ["onnxcam", *call, *options, "-o", str(out)])
        with pytest.raises(SystemExit) as left_:
            cli.main()
        assert left_.value.code in (0, None)
        [image] = json.loads((out / "explanations.json").read_text("utf-8"))["images"]
        [record] = image["explanations"]
        box = record["detection"]["box"]
        assert box["left"] <= x <= box["right"] and box["top"] <= y <= box["bottom"]
        if len(options) == 4:
            assert record["detection"]["label"] == every[1].label


def test_inspect_says_what_explain_does(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = CASES / "detector-ssd.onnx"
    monkeypatch.setattr(sys, "argv", ["onnxcam", "inspect", str(path)])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert "detector  boxes and scores: scores, boxes; -t box:0" in printed
    for layer in explainer(path).plan.layers:
        assert f"layer     {layer} (one scale)" in printed
    assert "problem" not in printed


def test_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Listed, drawn and recorded, with Ultralytics' metadata and without a card."""
    onnx.save(ultralytics_style(), tmp_path / "yolo.onnx")
    photo = np.random.default_rng(7).integers(0, 256, (64, 128, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    call = ["explain", str(tmp_path / "photo.png"), "-m", str(tmp_path / "yolo.onnx")]
    monkeypatch.setattr(sys, "argv", ["onnxcam", *call, "-o", str(out)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None)
    printed = capsys.readouterr().out
    records = json.loads((out / "explanations.json").read_text("utf-8"))
    [image] = records["images"]
    for n, one in enumerate(image["explanations"]):
        assert one["detection"] == one["detections"][n]
        assert one["detection"]["label"] in ("cup", "hat")
        line = f"box:{n:<3} {one['detection']['label']:<24} {one['detection']['probability']:.2f}"
        assert line in printed
        assert Image.open(out / one["overlay"]).size == (128, 64)


def scales_apart() -> onnx.ModelProto:
    """Scores and boxes of two scales, of 2 and 6 boxes a cell; every box one from its cell."""
    rng = np.random.default_rng(13)
    weights = {
        "w1": rng.normal(size=(6, 3, 8, 8)).astype(np.float32) / 5,
        "w2": rng.normal(size=(6, 6, 2, 2)).astype(np.float32) / 2,
        "wide": rng.normal(size=(6, 6, 3, 3)).astype(np.float32) / 4,
    }
    text = ""
    for n, (cells, boxes) in enumerate(((16, 2), (4, 6)), 1):
        weights |= {
            f"s{n}": rng.normal(size=(boxes, 6, 1, 1)).astype(np.float32),
            f"b{n}": np.zeros((boxes * 16, 6, 1, 1), np.float32),
            f"one{n}": np.array([1, cells * boxes, 1], np.int64),
            f"many{n}": np.array([1, cells * boxes, 16], np.int64),
            f"offset{n}": np.tile(np.float32([1, -2, 6, 4, *[0] * 12]), boxes),
        }
        text += f"""
            sc{n} = Conv (f{n}, s{n})
            st{n} = Transpose <perm=[0,2,3,1]> (sc{n})
            scores{n} = Reshape (st{n}, one{n})
            bc{n} = Conv (f{n}, b{n}, offset{n})
            bt{n} = Transpose <perm=[0,2,3,1]> (bc{n})
            boxes{n} = Reshape (bt{n}, many{n})
        """
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,32,32] image)
            => (float[1,32,1] scores1, float[1,24,1] scores2,
                float[1,32,16] boxes1, float[1,24,16] boxes2) {{
            c0 = Conv <strides=[8,8], kernel_shape=[8,8]> (image, w1)
            f0 = Relu (c0)
            c1 = Conv <pads=[1,1,1,1]> (f0, wide)
            f1 = Relu (c1)
            c2 = Conv <strides=[2,2], kernel_shape=[2,2]> (f1, w2)
            f2 = Relu (c2)
            {text}
        }}
        """,
        weights,
    )


def test_scales_with_outputs_of_their_own() -> None:
    """As BlazeFace has them: boxes in pixels from the middle of their cells, and keypoints."""
    made = explainer(scales_apart(), method="grad-cam")
    x = np.random.default_rng(14).random((3, 32, 32), np.float32)
    found = made.explain(x)
    assert len(found) == 3
    for d in found[0].detected.every:
        scale, place = (0, d.anchor) if d.anchor < 32 else (1, d.anchor - 32)
        stride, boxes, wide = ((8, 2, 4), (16, 6, 2))[scale]
        row, column = divmod(place // boxes, wide)
        x0, y0 = (column + 0.5) * stride + 1, (row + 0.5) * stride - 2
        right = np.clip([x0 - 3, y0 - 2, x0 + 3, y0 + 2], 0, 32)
        np.testing.assert_allclose(d.box, right, atol=1e-5)
    for one in found:
        anchor = one.detected.one.anchor
        name, place = ("scores1", anchor) if anchor < 32 else ("scores2", anchor - 32)
        # Of the fine scale, whose head sees one place, the maps before the last wide convolution.
        assert one.layer == ("f0" if anchor < 32 else "f2")
        [right] = explainer(made.path, method="grad-cam", layer=one.layer).explain(
            x, f"{name}[{place},0]"
        )
        atol = 1e-6 * np.abs(right.signed).max()
        np.testing.assert_allclose(one.signed, right.signed, atol=atol)
