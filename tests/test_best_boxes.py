"""Detectors that list their best boxes: Paddle's rows, TensorFlow's lists."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import onnxcam
from onnxcam import cli
from onnxcam.errors import InputArrayError, LabelsError

from . import listing
from .conftest import parse, runtime

CELLS = np.stack(np.mgrid[:4, :4].reshape(2, -1)[::-1], axis=1) * 8 + 4  # x and y of 16 centres
HALF = np.array([3, 2])
BOXES = np.concatenate([CELLS - HALF, CELLS + HALF], axis=1).astype(np.float32)
LABELS = ["cup", "hat", "box"]
PHOTO = np.random.default_rng(7).integers(0, 256, (64, 128, 3), np.uint8)
ROWS = "multiclass_nms3_0.tmp_0"


def network(kind: str) -> onnx.ModelProto:
    """Boxes that are the same on every image, one a cell; scores of three classes of it.

    ``paddle`` divides the boxes by the photograph's scale; ``tensorflow`` takes bytes, channels
    last, and gives boxes as top, left, bottom, right in parts of the image.
    """
    rng = np.random.default_rng(5)
    paddle = kind == "paddle"
    inputs = "float[1,3,32,32] image, float[1,2] scale_factor"
    begin = "x = Identity (image)"
    end = """
        four = Gather <axis=1> (scale_factor, turned)
        wide = Unsqueeze <axes=[1]> (four)
        boxes = Div (still, wide)
        scores = Sigmoid (flat)
    """
    if not paddle:
        inputs = "uint8[1,32,32,3] input_tensor"
        begin = (
            "f = Cast <to=1> (input_tensor) m = Mul (f, part) x = Transpose <perm=[0,3,1,2]> (m)"
        )
        end = """
            swapped = Gather <axis=2> (still, turned)
            boxes = Div (swapped, size)
            last = Transpose <perm=[0,2,1]> (flat)
            scores = Sigmoid (last)
        """
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 11]>
        net ({inputs}) => (float[1,16,4] boxes, float[1,{"3,16" if paddle else "16,3"}] scores) {{
            {begin}
            c = Conv <strides=[8,8], kernel_shape=[8,8]> (x, w)
            r = Relu (c)
            s = Conv (r, v)
            flat = Reshape (s, shape)
            zero = Mul (x, none)
            nothing = ReduceSum <axes=[1,2,3], keepdims=1> (zero)
            one = Reshape (nothing, ones)
            still = Add (fixed, one)
            {end}
        }}
        """,
        {
            "w": rng.normal(size=(6, 3, 8, 8)).astype(np.float32) / 5,
            "v": rng.normal(size=(3, 6, 1, 1)).astype(np.float32),
            "shape": np.array([1, 3, 16], np.int64),
            "none": np.zeros((), np.float32),
            "ones": np.array([1, 1, 1], np.int64),
            "fixed": BOXES[None],
            "turned": np.array([1, 0, 1, 0] if paddle else [1, 0, 3, 2], np.int64),
            **({} if paddle else {"size": np.float32(32), "part": np.float32(1 / 255)}),
        },
    )


def paddle(**options) -> onnx.ModelProto:
    model = network("paddle")
    listing.paddle_rows(model, "boxes", "scores", 16, **options)
    return model


def tensorflow(apart: bool = True) -> onnx.ModelProto:
    model = network("tensorflow")
    listing.tensorflow_lists(model, "boxes", "scores", 3, apart=apart)
    return model


def explainer(model: onnx.ModelProto, **options) -> onnxcam.Explainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxcam.Explainer(model, **{"labels": LABELS, **options})


def in_photo(resize: str, shape: tuple[int, ...]) -> np.ndarray:
    """The boxes of the 16 cells in a photograph's pixels."""
    height, width = shape[:2]
    scale = np.array([32 / width, 32 / height])
    if resize == "letterbox":
        scale = np.full(2, scale.min())
    offset = np.rint((32 - scale * [width, height]) / 2)
    edges = (BOXES.reshape(-1, 2, 2) - offset) / scale
    return np.clip(edges, 0, [width, height]).reshape(-1, 4)


def anchor(found, boxes: np.ndarray) -> int:
    """Which cell a box is that of."""
    far = np.abs(boxes - np.array(found.box)).max(axis=1)
    assert far.min() < 1e-3
    return int(far.argmin())


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("normalized", [True, False])
def test_paddles_rows(resize: str, normalized: bool) -> None:
    """Against what the model itself gives, fed with the photograph's scale; and its logits."""
    model = paddle(normalized=normalized, least=0.3)
    made = explainer(model, preprocess={"resize": resize, "divide": 255}, method="grad-cam")
    found = made.explain(PHOTO)
    tensor, geometry = made.preprocess.apply(PHOTO, "NCHW", "float32")
    scale = np.array([[geometry.rows.scale, geometry.columns.scale]], np.float32)
    rows, _ = runtime(model).run(None, {"image": tensor, "scale_factor": scale})
    every = found[0].detected.every
    assert len(every) == len(rows) > 3
    boxes = in_photo(resize, PHOTO.shape)
    for d, row in zip(every, rows, strict=True):
        assert (d.index, d.label) == (row[0], LABELS[int(row[0])])
        assert d.probability == pytest.approx(row[1], rel=1e-5)
        offset = np.array([geometry.columns.offset, geometry.rows.offset] * 2)
        edges = row[2:] - offset / scale[0, [1, 0, 1, 0]]
        np.testing.assert_allclose(d.box, np.clip(edges, 0, [128, 64] * 2), atol=1e-3)
        anchor(d, boxes)
    elements = [f"flat[{e.detected.one.index},{anchor(e.detected.one, boxes)}]" for e in found]
    rights = explainer(model, preprocess=made.preprocess, method="grad-cam", layer="r").explain(
        PHOTO, elements
    )
    assert len(found) == 3
    for one, right in zip(found, rights, strict=True):
        assert one.layer == "r" and one.score == pytest.approx(right.score, rel=1e-4)
        np.testing.assert_allclose(one.signed, right.signed, atol=1e-5 * right.signed.max())


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0)])
def test_columns_are_told_by_what_they_are_made_of(order: tuple[int, ...]) -> None:
    right = explainer(paddle(), preprocess="unit").explain(PHOTO)
    model = paddle()
    joins = [n for n in model.graph.node if n.op_type == "Concat"][-1]
    parts = [joins.input[i] for i in order]
    del joins.input[:]
    joins.input.extend(parts)
    found = explainer(model, preprocess="unit").explain(PHOTO)
    assert [e.detected.one for e in found] == [e.detected.one for e in right]
    assert [e.score for e in found] == [e.score for e in right]


def test_where_columns_do_not_tell_what_is_suppressed_does() -> None:
    """A class that is computed is no whole number for sure: what goes into the NMS is explained."""
    model = paddle(least=0.3)
    cast = next(n for n in model.graph.node if n.op_type == "Cast")
    half = helper.make_node("Mul", [cast.output[0], "one.factor"], ["computed"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one.factor"))
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[i] = "computed"
    model.graph.node.insert(list(model.graph.node).index(cast) + 1, half)
    made = explainer(model, preprocess="unit")
    assert made.plan.detector is not None and not made.plan.detector.final
    boxes = [d.box for d in made.explain(PHOTO)[0].detected.every]
    right = explainer(paddle(least=0.3), preprocess="unit").explain(PHOTO)[0].detected.every
    np.testing.assert_allclose(boxes, [d.box for d in right], atol=1e-3)


def test_boxes_and_scores_before_a_suppression_outside() -> None:
    """Paddle's export without NMS: boxes [N, A, 4], and scores [N, C, A]."""
    found = explainer(network("paddle"), preprocess="unit").explain(PHOTO)
    right = explainer(paddle(least=0.25), preprocess="unit").explain(PHOTO)
    for one, other in zip(found, right, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
        np.testing.assert_allclose(one.detected.one.box, other.detected.one.box, atol=1e-3)


def test_each_photograph_has_its_own_scale() -> None:
    made = explainer(paddle(), preprocess={"divide": 255})
    photos = [PHOTO, PHOTO[:40], np.ascontiguousarray(PHOTO[:, :50])]
    for photo, found in zip(photos, made.explain_batch(photos), strict=True):
        for d in found[0].detected.every:
            anchor(d, in_photo("squash", photo.shape))
    # An input that is given is fed as it is; boxes lie where they did.
    given = made.explain(PHOTO, inputs={"scale_factor": np.ones(2, np.float32)})
    assert [e.detected.one.label for e in given] == [
        e.detected.one.label for e in made.explain(PHOTO)
    ]
    for e in given:
        anchor(e.detected.one, in_photo("squash", PHOTO.shape))
    with pytest.raises(InputArrayError, match="'scale_factor' of shape"):
        made.explain(PHOTO, inputs={"scale_factor": np.ones((1, 3), np.float32)})


def test_nothing_above_the_models_own_threshold() -> None:
    assert explainer(paddle(least=0.999), preprocess="unit").explain(PHOTO) == []


@pytest.mark.parametrize("apart", [True, False])
def test_tensorflows_lists(apart: bool) -> None:
    """Against the model's outputs; rows that only fill them up are no detections."""
    model = tensorflow(apart)
    made = explainer(model, method="grad-cam")
    assert made.labels == ("background", *LABELS) and made.plan.image.layout == "NHWC"
    found = made.explain(PHOTO)
    tensor, _ = made.preprocess.apply(PHOTO, "NHWC", "uint8")
    edges, *lists, count = runtime(model).run(None, {"input_tensor": tensor})
    scores, classes = lists
    every = found[0].detected.every
    kept = scores[0] > 0.25
    assert len(every) == kept.sum() and count[0] <= 20
    sizes = [64, 128, 64, 128]
    for d, edge, share, index in zip(
        every, edges[0][kept] * sizes, scores[0][kept], classes[0][kept], strict=True
    ):
        assert (d.index, d.label) == (index, LABELS[int(index) - 1])
        assert d.probability == pytest.approx(share, rel=1e-5)
        np.testing.assert_allclose(d.box, edge[[1, 0, 3, 2]], atol=1e-3)
    boxes = in_photo("squash", PHOTO.shape)
    ones = [e.detected.one for e in found]
    elements = [f"last[{anchor(d, boxes)},{d.index - 1}]" for d in ones]
    rights = explainer(model, method="grad-cam", layer="r").explain(PHOTO, elements)
    for one, right in zip(found, rights, strict=True):
        assert one.layer == "r" and one.score == pytest.approx(right.score, rel=1e-4)
        np.testing.assert_allclose(one.signed, right.signed, atol=1e-5 * right.signed.max())
    [named] = made.explain(PHOTO, f"box:{every[1].label}")
    assert named.detected.one.label == every[1].label


def test_labels_of_classes_that_are_counted_from_one() -> None:
    assert explainer(tensorflow(), labels=["???", *LABELS]).labels == ("???", *LABELS)
    with pytest.raises(LabelsError, match="2 labels for a detector of 3 classes"):
        explainer(tensorflow(), labels=LABELS[:2])


def test_an_order_of_edges_that_nothing_tells_is_a_guess() -> None:
    model = tensorflow(False)
    told = {f"detection_{n}": f"found_{n}" for n in ("boxes", "scores", "classes")}
    for node in model.graph.node:
        node.output[:] = [told.get(o, o) for o in node.output]
    for output in model.graph.output:
        output.name = told.get(output.name, output.name)
    with pytest.warns(UserWarning, match="Guessed that boxes are left, top, right, bottom"):
        made = onnxcam.Explainer(model)
    assert made.plan.detector.guess
    found = made.explain(PHOTO)
    right = explainer(tensorflow(False)).explain(PHOTO)
    assert [e.score for e in found] == [e.score for e in right]


@pytest.mark.parametrize("whole", [False, True])
def test_six_classes_are_no_row_of_a_box(whole: bool) -> None:
    """A classifier whose six scores are joined from heads of 1, 1 and 4 of them."""
    rng = np.random.default_rng(2)
    whole_ = "k = Cast <to=6> (a) a2 = Cast <to=1> (k)" if whole else "a2 = Identity (a)"
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,16,16] image) => (float[N,6] logits) {{
            c = Conv (image, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            flat = Flatten (p)
            a = Gemm (flat, wa)
            b = Gemm (flat, wb)
            d = Gemm (flat, wd)
            {whole_}
            logits = Concat <axis=1> (a2, b, d)
        }}
        """,
        {
            "w": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
            **{
                f"w{n}": rng.normal(size=(5, k)).astype(np.float32)
                for n, k in (("a", 1), ("b", 1), ("d", 4))
            },
        },
    )
    made = explainer(model, labels=None)
    assert made.plan.detector is None and made.plan.classes == 6


def test_a_detector_is_instrumented_once(tmp_path: Path) -> None:
    onnx.save(paddle(), tmp_path / "m.onnx")
    made = explainer(tmp_path / "m.onnx", cache=True)
    assert [m.name for m in made.methods] == ["layer-cam"]
    cache = Path(os.environ["ONNXCAM_CACHE"])
    assert len(list(cache.rglob("plan.json"))) == 1
    again = explainer(tmp_path / "m.onnx", cache=True)
    assert [m.name for m in again.methods] == ["layer-cam"]
    assert len(list(cache.rglob("plan.json"))) == 1
    assert {e.method for e in again.explain(PHOTO)} == {"layer-cam"}


def test_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    onnx.save(paddle(), tmp_path / "m.onnx")
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["onnxcam", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code in (0, None)
        return capsys.readouterr().out

    shown = call("inspect", "m.onnx")
    assert "problem" not in shown and "detector  boxes and scores" in shown
    options = ("-m", "m.onnx", "--labels", "labels.txt")
    call("explain", "photo.png", *options, "-o", "out")
    [image] = json.loads((tmp_path / "out" / "explanations.json").read_text())["images"]
    one = image["explanations"][1]["detection"]
    x = int(one["box"]["left"] + one["box"]["right"]) // 2
    y = int(one["box"]["top"] + one["box"]["bottom"]) // 2
    call("explain", "photo.png", *options, "-o", "at", "--at", f"{x},{y}")
    [image] = json.loads((tmp_path / "at" / "explanations.json").read_text())["images"]
    box = image["explanations"][0]["detection"]["box"]
    assert box["left"] <= x <= box["right"] and box["top"] <= y <= box["bottom"]


def centres(names: list[str]) -> onnx.ModelProto:
    """Maps as CenterFace gives them, of stride 4; sizes and offsets are the same everywhere."""
    rng = np.random.default_rng(9)
    size = np.log(np.float32([12, 20]) / 4)  # rows before columns
    heads = "".join(f"h{n} = Conv (r, v{n}, b{n}) " for n in range(4))
    kinds = (1, 2, 2, 10)
    outputs = ", ".join(f"float[1,{k},8,12] {n}" for n, k in zip(names, kinds, strict=True))
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,3,32,48] image) => ({outputs}) {{
            c = Conv <strides=[4,4], kernel_shape=[4,4]> (image, w)
            r = Relu (c)
            {heads}
            {names[0]} = Sigmoid (h0)
            {names[1]} = Identity (h1)
            {names[2]} = Identity (h2)
            {names[3]} = Identity (h3)
        }}
        """,
        {
            "w": rng.normal(size=(6, 3, 4, 4)).astype(np.float32) / 2,
            "v0": rng.normal(size=(1, 6, 1, 1)).astype(np.float32),
            **{f"v{n}": np.zeros((k, 6, 1, 1), np.float32) for n, k in ((1, 2), (2, 2), (3, 10))},
            "b0": np.zeros(1, np.float32),
            "b1": size,
            "b2": np.float32([0.25, -0.125]),
            "b3": np.zeros(10, np.float32),
        },
    )
    return model


@pytest.mark.parametrize(
    ("names", "told"),
    [(["n537", "n538", "n539", "n540"], False), (["heat", "scale", "offset", "marks"], True)],
)
def test_centerfaces_maps(names: list[str], told: bool) -> None:
    """Against its own reading of them, box by box; and the element of the map of centres."""
    model = centres(names)
    x = np.random.default_rng(3).random((3, 32, 48), np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = onnxcam.Explainer(model, method="grad-cam", labels=["face"])
    assert any("Guessed that 'n538' holds the sizes" in str(w.message) for w in caught) != told
    found = made.explain(x)
    heat, size, offset, _ = (o[0] for o in runtime(model).run(None, {"image": x[None]}))
    for d in found[0].detected.every:
        row, column = divmod(d.anchor, 12)
        assert d.probability == pytest.approx(heat[0, row, column], rel=1e-5)
        y, x0 = (
            (row + offset[0, row, column] + 0.5) * 4,
            (column + offset[1, row, column] + 0.5) * 4,
        )
        high, wide = np.exp(size[:, row, column]) * 4 / 2
        edges = [x0 - wide, y - high, x0 + wide, y + high]
        np.testing.assert_allclose(d.box, np.clip(edges, 0, [48, 32, 48, 32]), atol=1e-3)
    d = found[0].detected.one
    row, column = divmod(d.anchor, 12)
    [right] = explainer(model, method="grad-cam", labels=None, layer="r").explain(
        x, f"{names[0]}[0,{row},{column}]"
    )
    assert found[0].layer == "r" and found[0].score == pytest.approx(right.score, rel=1e-5)
    np.testing.assert_allclose(found[0].signed, right.signed, atol=1e-6)
