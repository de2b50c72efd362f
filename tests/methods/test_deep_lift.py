"""DeepLift of a network whose classes are the channels of a convolution, as SqueezeNet's are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import onnxcam


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 3, 8, 8] x) => (float[1, 5] y)
        <float[6, 3, 3, 3] w1, float[6] b1, float[5, 6, 1, 1] w2, float[5] b2>
        {
            a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            r = Relu(a)
            c = Conv(r, w2, b2)
            s = Relu(c)
            p = GlobalAveragePool(s)
            y = Flatten(p)
        }
    """)
    rng = np.random.default_rng(5)
    for name, shape in {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (5, 6, 1, 1), "b2": (5,)}.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    file = tmp_path_factory.mktemp("deep-lift") / "net.onnx"
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_contributions_add_up_where_the_head_is_a_convolution(path: Path, baseline: float) -> None:
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [[here]] = session.run(None, {"x": image})
    [[there]] = session.run(None, {"x": np.full_like(image, baseline)})
    explainer = onnxcam.Explainer(
        path, method=f"deep-lift:baseline={baseline}", preprocess="unit", providers="cpu"
    )
    for target in range(5):
        [found] = explainer.explain(image, target)
        assert found.signed.sum() == pytest.approx(here[target] - there[target], abs=1e-5)
