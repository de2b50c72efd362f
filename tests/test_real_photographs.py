"""Real models on real photographs: the heatmap is on the animal it was asked for."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import onnxcam

from .conftest import runtime, shared

DOGS, CATS = range(151, 269), range(281, 286)
FOUND = ["efficientnet-lite0-torch", "mobilenetv2-torch-dynamo", "resnet50-keras-w8"]
FOUND += ["mobilenetv2-qlinear"]
CARDS = {
    "efficientnet-lite0-torch": "efficientnet-lite0",
    "mobilenetv2-torch-dynamo": "torchvision-mobilenetv2",
    "squeezenet1.1-mxnet-opset7": "mxnet-squeezenet",
    "squeezenet1.1-caffe": "caffe-squeezenet",
    "resnet50-keras-w8": "keras-resnet50",
    "pplcnetv2-paddle": "paddleclas",
    "mnist-cntk": "cntk-mnist",
    "mobilenetv2-tflite-qdq-uint8": "tflite-imagenet-1001",
    "mobilenetv2-qlinear": "torchvision-mobilenetv2",
}


@pytest.mark.parametrize("name", CARDS)
def test_every_classifier_is_known_by_its_card(name: str) -> None:
    explainer = onnxcam.Explainer(shared("models", f"{name}.onnx"))
    assert explainer.preprocess_from == f"card '{CARDS[name]}'"
    assert explainer.labels is not None and len(explainer.labels) == explainer.plan.classes


@pytest.mark.parametrize("name", FOUND)
def test_dog_and_cat(name: str) -> None:
    items = json.loads(shared("images", "benchmark.json").read_text())
    item = next(i for i in items if i["file"] == "two_objects/both.png")
    explainer = onnxcam.Explainer(shared("models", f"{name}.onnx"))
    ranked = explainer.explain(shared("images", "two_objects", "both.png"), "top:1000")
    for category, classes in (("dog", DOGS), ("cat", CATS)):
        best = next(e for e in ranked if e.target in classes)
        x, y = best.peak
        boxes = [o["bbox"] for o in item["objects"] if o["category"] == category]
        assert any(
            left <= x <= left + width and top <= y <= top + height
            for left, top, width, height in boxes
        ), f"{category}: {best.label} peaks at {x}, {y}, boxes {boxes}"


@pytest.mark.parametrize("name", [n for n in CARDS if n != "mnist-cntk"])
def test_predictions_are_right(name: str) -> None:
    """Labels of the sample photographs, so that preprocessing is not just plausible."""
    labels = json.loads(shared("images", "imagenet_samples", "labels.json").read_text())
    explainer = onnxcam.Explainer(shared("models", f"{name}.onnx"))
    hits = 0
    files = sorted(labels)[::3]
    for file in files:
        found = explainer.explain(shared("images", "imagenet_samples", file), "top:5")
        background = explainer.plan.classes == 1001
        hits += labels[file] + background in [e.target for e in found]
    assert hits >= 0.75 * len(files), f"{hits} of {len(files)} in the top 5"


def test_embedded_model_computes_what_the_published_one_does() -> None:
    ours = runtime(onnxcam.default_model())
    theirs = runtime(shared("models", "efficientnet-lite0-torch.onnx"))
    image = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype("f")
    a, b = ours.run(None, {"input": image})[0], theirs.run(None, {"input": image})[0]
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_embedded_model_is_valid() -> None:
    onnx.checker.check_model(onnx.load(onnxcam.default_model()), full_check=True)
    explainer = onnxcam.Explainer(onnxcam.default_model())
    [best] = explainer.explain(onnxcam.default_photograph())
    assert best.label == "tiger cat"
    assert explainer.labels is not None and explainer.labels[281] == "tabby"
