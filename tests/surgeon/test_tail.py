"""Runs from a layer on, where lengths of the image cross the cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxcam

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,12,12] x) => (float[N,4] y) <int64 zero = {{0}}, int64[1] rest = {{-1}}, int64[1] first = {{0}}> {{
    c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
    a = Relu(c)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
    {flat}
    y = Gemm<transB=1>(f, v)
}}
"""
FLAT = {
    "flattened": "f = Flatten(p)",
    "of the image": "s = Shape(x) b = Gather(s, zero) u = Unsqueeze(b, first)"
    " t = Concat<axis=0>(u, rest) f = Reshape(p, t)",
    "of a layer before": "s = Shape(c) b = Gather(s, zero) u = Unsqueeze(b, first)"
    " t = Concat<axis=0>(u, rest) f = Reshape(p, t)",
}


def explained(flat: str, method: str, folder: Path) -> np.ndarray:
    model = onnx.parser.parse_model(MODEL.format(flat=FLAT[flat]))
    rng = np.random.default_rng(3)
    for name, shape in (("w", (5, 3, 3, 3)), ("v", (4, 45))):
        weights = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    path = folder / f"{flat}.onnx"
    onnx.save(model, path)
    explainer = onnxcam.Explainer(path, method=method, layer="a", preprocess="unit")
    [found] = explainer.explain(rng.normal(size=(3, 12, 12)).astype(np.float32), 2)
    return found.signed


@pytest.mark.parametrize("flat", ["of the image", "of a layer before"])
@pytest.mark.parametrize("method", ["ablation-cam", "recipro-cam"])
def test_a_batch_size_that_crosses_the_cut(flat: str, method: str, tmp_path: Path) -> None:
    expected = explained("flattened", method, tmp_path)
    found = explained(flat, method, tmp_path)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
