"""Boxes that are offsets from cells, decoded in the graph, against those of Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.surgeon.portable.cells import GRIDS
from onnxcam.targets import corners
from tests.conftest import parse, runtime
from tests.test_boxes import scales_apart


def test_the_grids_are_those_of_python() -> None:
    assert GRIDS == corners._GRIDS


def yolox() -> onnx.ModelProto:
    """Rows of fixed offsets and scores, of cells of 8, 16 and 32 pixels of 64 by 64."""
    rng = np.random.default_rng(4)
    return parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,64,64] image) => (float[1,84,7] rows) {
            c = Conv <strides=[8,8], kernel_shape=[8,8]> (image, w)
            r = Relu (c)
            s1 = Conv (r, v)
            s2 = AveragePool <kernel_shape=[2,2], strides=[2,2]> (s1)
            s3 = AveragePool <kernel_shape=[4,4], strides=[4,4]> (s1)
            f1 = Reshape (s1, shape)
            f2 = Reshape (s2, shape)
            f3 = Reshape (s3, shape)
            flat = Concat <axis=2> (f1, f2, f3)
            turned = Transpose <perm=[0,2,1]> (flat)
            p = Sigmoid (turned)
            zero = Mul (image, none)
            nothing = ReduceSum <keepdims=1> (zero)
            still = Reshape (nothing, one)
            offsets = Add (fixed, still)
            rows = Concat <axis=2> (offsets, p)
        }
        """,
        {
            "w": rng.normal(size=(6, 3, 8, 8)).astype(np.float32) / 4,
            "v": rng.normal(size=(3, 6, 1, 1)).astype(np.float32),
            "shape": np.array([1, 3, -1], np.int64),
            "none": np.zeros((), np.float32),
            "one": np.array([1, 1, 1], np.int64),
            "fixed": rng.uniform(0.2, 0.8, (1, 84, 4)).astype(np.float32),
        },
    )


@pytest.mark.parametrize("model", [scales_apart, yolox])
def test_boxes_of_cells_are_those_of_detections(model, tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "net.onnx")
    made = onnxcam.export(tmp_path / "net.onnx", tmp_path / "net.cam.onnx", method="grad-cam")
    size = model().graph.input[0].type.tensor_type.shape.dim[2].dim_value
    x = np.random.default_rng(14).random((1, 3, size, size), np.float32)
    names = ["boxes", "confidences", "heatmap", "targets"]
    boxes, sure, heat, targets = runtime(made.path).run(names, {"image": x})
    explainer = onnxcam.Explainer(tmp_path / "net.onnx", method="grad-cam")
    found = explainer.explain(x)
    assert found[0].detected.every
    for one in found[0].detected.every:
        right = np.clip(boxes[0, one.anchor], 0, size)
        np.testing.assert_allclose(one.box, right, atol=1e-4)
        assert sure[0, one.anchor] == pytest.approx(one.probability, rel=1e-5)
    assert targets[0, 0] == found[0].detected.one.anchor
    np.testing.assert_allclose(heat[0, 0], found[0].heatmap, atol=1e-4)
