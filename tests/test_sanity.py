"""The sanity checks of ``benchmarks/sanity.py``: what is made random, and how maps are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from randomised import from_the_top, layers, randomised, ssim


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    found = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2, 6, 6] x) => (float[N, 5] y)
        <float[4, 2, 3, 3] w1, float[4] b1, int8[4, 4, 1, 1] w2, float s, float[5, 4] w3, float[5] b3>
        {
            a = Conv(x, w1, b1)
            r = Relu(a)
            d = DequantizeLinear(w2, s)
            c = Conv(r, d)
            p = GlobalAveragePool(c)
            f = Flatten(p)
            y = Gemm<transB = 1>(f, w3, b3)
        }
    """)
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 2, 3, 3), "b1": 4, "w3": (5, 4), "b3": 5}
    for name, shape in shapes.items():
        values = rng.normal(0.2, 0.5, size=shape).astype(np.float32)
        found.graph.initializer.append(numpy_helper.from_array(values, name))
    whole = rng.integers(-128, 128, (4, 4, 1, 1)).astype(np.int8)
    found.graph.initializer.append(numpy_helper.from_array(whole, "w2"))
    found.graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "s"))
    return found


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_layers_come_in_topological_order_with_their_weights(model: onnx.ModelProto) -> None:
    assert list(layers(model).items()) == [("a", "w1"), ("c", "w2"), ("y", "w3")]


def test_a_cascade_goes_from_the_top_down() -> None:
    assert from_the_top(["a", "c", "y"], [1, 3]) == [["y"], ["a", "c", "y"]]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("chosen", [["y"], ["c"], ["a", "c", "y"]])
def test_only_the_weights_of_the_layers_change(
    model: onnx.ModelProto, chosen: list[str], shuffle: bool
) -> None:
    before, after = weights(model), weights(randomised(model, chosen, 3, shuffle))
    own = {layers(model)[name] for name in chosen}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == own
    for name in own:
        assert after[name].dtype == before[name].dtype and after[name].shape == before[name].shape
        if shuffle:
            np.testing.assert_array_equal(
                np.sort(after[name].ravel()), np.sort(before[name].ravel())
            )


def test_drawn_weights_have_the_mean_and_deviation_of_the_trained(model: onnx.ModelProto) -> None:
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    values = np.random.default_rng(1).gamma(2.0, 0.3, (300, 4)).astype(np.float32)
    wide.graph.initializer[2].CopyFrom(numpy_helper.from_array(values, "w3"))
    after = weights(randomised(wide, ["y"], 0))["w3"]
    assert after.mean() == pytest.approx(values.mean(), abs=0.05)
    assert after.std() == pytest.approx(values.std(), rel=0.1)
    assert (after < 0).any()  # a gamma distribution has no such numbers


def test_a_layer_is_drawn_alike_alone_and_in_a_cascade(model: onnx.ModelProto) -> None:
    alone, cascade = (weights(randomised(model, some, 5)) for some in (["c"], ["c", "y"]))
    np.testing.assert_array_equal(alone["w2"], cascade["w2"])


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13, window by window."""
    found = []
    for i in range(x.shape[0] - 6):
        for j in range(x.shape[1] - 6):
            a, b = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
            covariance = np.cov(a, b)
            light = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
            rest = (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4)
            found.append(light * rest)
    return float(np.mean(found))


def test_ssim_is_its_definition() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(20, 17))
    y = np.clip(x + rng.normal(0, 0.2, x.shape), 0, 1)
    assert ssim(x, y) == pytest.approx(slow_ssim(x, y), abs=1e-12)
    assert ssim(x, x) == pytest.approx(1) and ssim(x, 1 - x) < 0 < ssim(x, y) < 1
