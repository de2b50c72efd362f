"""What follows from inferred lengths is folded where inference would end; other domains alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import parser

import onnxcam
from onnxcam.graph.values import dims
from onnxcam.model.prepare import Prepared

from ..conftest import runtime


def test_axes_from_the_rank(tmp_path) -> None:
    """As the standard's body of RMSNormalization computes them."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
        net (float[2,3,N] x) => (float[2,3,N] y) <int64 one = {1}> {
            t = Transpose <perm = [1, 0, 2]> (x)  s = Shape (t)  n = Size (s)
            axes = Range (one, n, one)
            m = ReduceMean (t, axes)  c = Sub (t, m)
            y = Transpose <perm = [1, 0, 2]> (c) }"""
    found = Prepared(parser.parse_model(text), tmp_path / "net.onnx").model
    [mean] = [n for n in found.graph if n.op_type == "ReduceMean"]
    assert dims(mean.outputs[0]) == [3, 1, 1]
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("f")
    [y] = runtime(ir.serde.serialize_model(found)).run(None, {"x": x})
    np.testing.assert_allclose(y, x - x.mean((0, 2), keepdims=True), atol=1e-6)


def test_a_model_of_another_domain_alone() -> None:
    text = """<ir_version: 8, opset_import: ["ai.onnx.ml" : 1]>
        net (float[N,3] x) => (float[N,3] y) {
            y = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (x) }"""
    made = onnxcam.add_gradients(parser.parse_model(text), "y", "x")
    onnx.checker.check_model(made, full_check=True)
    feeds = {"x": np.ones((2, 3), "f"), "seed:y": np.ones((1, 2, 3), "f")}
    assert (runtime(made).run(["gradient:x"], feeds)[0] == 2).all()
