"""Rows of detectors that hold more than a box and scores; files of dynamic size."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.surgeon.plan import DetectorFacts

from .conftest import parse, runtime
from .yolo import yolo

PHOTO = Image.open(onnxcam.default_photograph()).convert("RGB")
UNIT = {"divide": 255, "resize": "letterbox", "size": [96, 96]}


def explainer(model: onnx.ModelProto, **options) -> onnxcam.Explainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxcam.Explainer(model, **options)


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same for one image of 96 by 96 pixels."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for axis, length in zip(made.graph.input[0].type.tensor_type.shape.dim, (1, 3, 96, 96), strict=True):  # fmt: skip
        axis.dim_value = length
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    return made


@pytest.mark.parametrize(
    ("task", "labels", "extra"),
    [("detect", "abc", 0), ("pose", "a", 9), ("segment", "abc", 6)],
)
def test_only_scores_are_classes(task: str, labels: str, extra: int) -> None:
    """Not keypoints, nor coefficients of masks; with the metadata and without."""
    model = yolo(task, tuple(labels), extra)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    for one in (model, bare, fixed(bare)):
        reading = explainer(one, preprocess=UNIT).plan.detector
        assert reading == DetectorFacts(classes=len(labels), squashed="Sigmoid")
    x, _ = explainer(model).preprocess.apply(np.asarray(PHOTO), "NCHW", "float32")
    rows = runtime(model).run(None, {"images": x})[0][0].T
    scores = rows[:, 4 : 4 + len(labels)]
    best = np.unravel_index(scores.argmax(), scores.shape)
    [first] = explainer(bare, preprocess=UNIT).explain(PHOTO, "box:0")
    assert (first.detected.one.anchor, first.detected.one.index) == best
    assert first.detected.one.probability == pytest.approx(scores.max(), rel=1e-4)


def test_layers_of_a_file_of_dynamic_size_are_those_of_a_fixed_one() -> None:
    model = yolo()
    found, right = (explainer(m, preprocess=UNIT) for m in (model, fixed(model)))
    assert (
        [v.name for v in right.plan.layers] == [v.name for v in found.plan.layers] == ["p0", "p1"]
    )
    for one, other in zip(found.explain(PHOTO), right.explain(PHOTO), strict=True):
        assert one.note == "" and one.layer == other.layer and one.detected == other.detected
        np.testing.assert_allclose(one.signed, other.signed, atol=1e-5 * other.signed.max())


def test_rows_of_masks_after_objectness() -> None:
    """As YOLOv5 joins them, ``[N, A, 5 + C + M]``: scale by scale, boxes and scores squashed."""
    rng = np.random.default_rng(4)
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,32,32] image) => (float[1,80,12] output0) {
            c0 = Conv <strides=[4,4], kernel_shape=[4,4]> (image, w)  f0 = Relu (c0)
            c1 = Conv <strides=[2,2], kernel_shape=[2,2]> (f0, v)  f1 = Relu (c1)
            h0 = Conv (f0, head)  t0 = Transpose <perm=[0,2,3,1]> (h0)
            a0, b0, s0, m0 = Split <axis=3> (t0, parts)
            xy0 = Sigmoid (a0)  wh0 = Sigmoid (b0)  sc0 = Sigmoid (s0)
            x0 = Mul (xy0, large)  y0 = Mul (wh0, large)
            j0 = Concat <axis=3> (x0, y0, sc0, m0)  r0 = Reshape (j0, rows)
            h1 = Conv (f1, head)  t1 = Transpose <perm=[0,2,3,1]> (h1)
            a1, b1, s1, m1 = Split <axis=3> (t1, parts)
            xy1 = Sigmoid (a1)  wh1 = Sigmoid (b1)  sc1 = Sigmoid (s1)
            x1 = Mul (xy1, large)  y1 = Mul (wh1, large)
            j1 = Concat <axis=3> (x1, y1, sc1, m1)  r1 = Reshape (j1, rows)
            output0 = Concat <axis=1> (r0, r1)
        }
        """,
        {
            "w": rng.normal(size=(5, 3, 4, 4)).astype(np.float32),
            "v": rng.normal(size=(5, 5, 2, 2)).astype(np.float32),
            "head": 0.4 * rng.normal(size=(12, 5, 1, 1)).astype(np.float32),
            "parts": np.array([2, 2, 4, 4], np.int64),
            "large": np.array(32, np.float32),
            "rows": np.array([1, -1, 12], np.int64),
        },
    )
    made = explainer(model, preprocess="unit", labels=["a", "b", "c"])
    assert made.plan.detector == DetectorFacts(objectness=True, classes=3, squashed="Sigmoid")
    x = np.random.default_rng(5).random((3, 32, 32), np.float32)
    rows = runtime(model).run(None, {"image": x[None]})[0][0]
    [first] = made.explain(x, "box:0")
    assert first.detected.one.probability == pytest.approx(
        (rows[:, 4:5] * rows[:, 5:8]).max(), rel=1e-4
    )
