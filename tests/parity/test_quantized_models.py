"""Maps of quantized models against those of the float networks that they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam

from ..conftest import runtime, shared
from .float_twin import float_twin

# model, its card, and the least correlation with the float network's maps. The first has 0.99 and
# more where the processor has VNNI instructions; without them ONNX Runtime saturates its products.
MODELS = {
    "mobilenetv2-tflite-qdq-uint8": ("tflite-imagenet-1001", 0.95),
    "mobilenetv2-qlinear": ("torchvision-mobilenetv2", 0.93),
}
PHOTOGRAPHS = 4


def correlations(name: str, twin: Path, count: int) -> list[float]:
    """Return Pearson's correlation of the signed maps for each of ``count`` photographs."""
    card, _ = MODELS[name]
    quantized = onnxcam.Explainer(shared("models", f"{name}.onnx"))
    exact = onnxcam.Explainer(twin, preprocess=card)
    items = json.loads(shared("images", "benchmark.json").read_text())
    found = []
    for item in items[:: len(items) // count][:count]:
        photograph = shared("images", *item["file"].split("/"))
        [meant] = exact.explain(photograph)
        [actual] = quantized.explain(photograph, meant.target)
        found.append(float(np.corrcoef(meant.signed.ravel(), actual.signed.ravel())[0, 1]))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_quantized_maps_are_those_of_the_float_network(name: str, tmp_path: Path) -> None:
    twin = tmp_path / "twin.onnx"
    onnx.save(float_twin(onnx.load(shared("models", f"{name}.onnx"))), twin)
    found = correlations(name, twin, PHOTOGRAPHS)
    assert min(found) >= MODELS[name][1], found


def test_decoding_the_layer_changes_no_output() -> None:
    """The maps of a graph of codes are decoded and encoded again, which gives the same codes."""
    from ..instrumented import ACTIVATIONS, instrument

    path = shared("models", "mobilenetv2-qlinear.onnx")
    data, plan = instrument(path, gradients=True)
    assert plan.layer.name == "697_quantized:decoded" and plan.layer.dtype == "float32"
    assert instrument(path, plan.layer.name)[1] == instrument(path, "697_quantized")[1]
    image = np.random.default_rng(3).normal(size=(1, 3, 224, 224)).astype("f")
    [expected] = runtime(path).run(["output"], {"input": image})
    found, layer = runtime(data).run(["output", ACTIVATIONS], {"input": image})
    np.testing.assert_array_equal(found, expected)
    assert layer.dtype == np.float32 and layer.min() == 0 and 0 < layer.max() <= 6.0001
