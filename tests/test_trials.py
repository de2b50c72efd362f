"""Ways to prepare an image, tried on real classifiers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam import cli
from onnxcam.errors import TargetError
from onnxcam.trials import try_cards

from .conftest import shared


@pytest.mark.parametrize(
    ("name", "card"),
    [("efficientnet-lite0-torch", "efficientnet-lite0"), ("resnet50-keras-w8", "keras-resnet50")],
)
def test_the_right_card_is_among_the_surest(name: str, card: str, tmp_path: Path) -> None:
    explainer = onnxcam.Explainer(shared("models", f"{name}.onnx"))
    image = shared("images", "two_objects", "both.png")
    trials = try_cards(explainer, image)
    assert card in [n for t in trials[:3] for n in t.names]
    assert [t.entropy for t in trials] == sorted(t.entropy for t in trials)
    right = next(t for t in trials if card in t.names)
    [found] = onnxcam.Explainer(explainer.path, preprocess=card).explain(image)
    assert (right.target, right.label) == (found.target, found.label)
    assert 0 < right.confidence <= 1


def test_scores_are_those_of_the_model(tmp_path: Path) -> None:
    explainer = onnxcam.Explainer(onnxcam.default_model())
    scores = explainer.scores(onnxcam.default_photograph())
    found = explainer.explain(onnxcam.default_photograph(), "top:3")
    order = np.argsort(scores)[::-1][:3]
    assert [e.target for e in found] == order.tolist()
    assert scores[order] == pytest.approx([e.score for e in found], rel=1e-5)


def test_the_command_line_lists_them(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model, photo = str(onnxcam.default_model()), str(onnxcam.default_photograph())
    monkeypatch.setattr(sys, "argv", ["onnxcam", "inspect", model, "--try", photo])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["confidence", "entropy", "class"]
    assert any("--preprocess efficientnet-lite0" in line and "cat" in line for line in lines)


def test_a_model_without_classes_has_nothing_to_be_sure_of() -> None:
    with pytest.warns(UserWarning):
        explainer = onnxcam.Explainer(shared("models", "vit-s-saliency-w8.onnx"))
    with pytest.raises(TargetError, match="no classes to be sure of"):
        try_cards(explainer, onnxcam.default_photograph())
