"""The probability of a class, beside its score."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam import cli
from onnxcam.targets.classes import probability

from .conftest import runtime, shared
from .test_cases import CASES, PHOTO, arrays

# What the model gives for class 1 of its first image is that class's probability.
SQUASHED = ["boxes-first", "ending-transposed", "sigmoid-1"]


@pytest.mark.parametrize("name", SQUASHED)
def test_it_is_what_the_model_gives(name: str) -> None:
    path = CASES / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = onnxcam.Explainer(path)
    image = arrays(name)["input.image"][:1]
    outputs = runtime(path).run([made.plan.output], {"image": image})[0]
    shares = outputs.reshape(-1)
    for index in range(min(3, shares.size)):
        [found] = made.explain(image, index)
        assert found.probability == pytest.approx(shares[index], rel=1e-4)
        assert found.to_dict()["probability"] == found.probability


def test_of_a_real_classifier() -> None:
    made = onnxcam.Explainer(shared("models", "resnet50-keras-w8.onnx"))
    [best] = made.explain(shared("images", "two_objects", "both.png"))
    assert best.label == "bull mastiff" and 0.2 < best.probability < 1
    made = onnxcam.Explainer(onnxcam.default_model())  # gives logits
    assert made.explain(onnxcam.default_photograph())[0].probability is None


def test_of_large_scores() -> None:
    scores = np.array([900.0, 890.0, -900.0])
    assert probability("Softmax", scores, 0) == pytest.approx(1 / (1 + np.exp(-10)))
    assert probability("Softmax", scores, 2) == 0
    assert probability("Sigmoid", scores, 2) == 0 and probability("Sigmoid", scores, 0) == 1
    assert probability("", scores, 0) is None


def test_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    call = ["explain", str(PHOTO), "-m", str(CASES / "sigmoid-1.onnx"), "--preprocess", "unit"]

    def run(*options: str) -> object:
        argv = ["onnxcam", *call, "-o", str(tmp_path), "--arrays", *options]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code

    assert run("--against") in (0, None)
    [image] = json.loads((tmp_path / "explanations.json").read_text("utf-8"))["images"]
    [record] = image["explanations"]
    assert record["method"] == "counterfactual"
    with np.load(tmp_path / record["arrays"]) as stored:
        [usual] = onnxcam.Explainer(CASES / "sigmoid-1.onnx", preprocess="unit").explain(PHOTO)
        atol = 1e-6 * np.abs(usual.signed).max()
        np.testing.assert_allclose(stored["signed"], -usual.signed, atol=atol)
    assert run("--against", "--method", "saliency") == 2
    assert "leave out --method" in capsys.readouterr().err
