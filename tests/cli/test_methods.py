"""``onnxcam methods``, and ``explain`` with methods, elements and other inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam.methods.registry import methods

from ..conftest import shared

PHOTO = str(onnxcam.default_photograph())


def cli(*arguments: object, code: int = 0) -> str:
    """Run the command line; return what it prints, with errors where it fails."""
    command = [sys.executable, "-m", "onnxcam", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def test_methods_are_listed_with_formula_and_paper() -> None:
    found = cli("methods")
    for method in methods().values():
        assert method.name in found and method.formula in found and method.citation in found


def test_explain_with_several_methods_and_elements(tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = cli(
        "explain", PHOTO, "--method", "grad-cam", "--method", "guided-backprop", "--method",
        "occlusion:size=112,stride=112", "-t", "282", "-t", "logits[282]", "-o", out,
    )  # fmt: skip
    records = json.loads((out / "explanations.json").read_text())["images"][0]["explanations"]
    assert [r["method"] for r in records[::2]] == [
        "grad-cam", "guided-backprop", "occlusion:size=112,stride=112"
    ]  # fmt: skip
    assert [r["target"] for r in records] == [282, "logits[282]"] * 3
    assert [r["space"] for r in records] == ["layer"] * 2 + ["input"] * 4
    assert len({r["overlay"] for r in records}) == 6
    for record in records:
        assert record["overlay"] in printed and (out / record["overlay"]).stat().st_size > 1000
    scores = [r["score"] for r in records]
    assert scores == pytest.approx([scores[0]] * 6, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "gradcam"), r"method 'gradcam': there is none. Nearest: grad-cam"),
        (("--method", "occlusion:width=3"), "no parameter 'width'"),
        (("--method", "cam", "--layer", "-2"), "averaged over space and given to one linear layer"),
        (("-t", "logits[1000]"), "out of range"),
        (("-t", "logit[3]"), "no tensor 'logit'. Nearest: logits"),
        (("--input", "question"), "write it as NAME=FILE.npy"),
        (("--input", "question=gone.npy"), "gone.npy cannot be read"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    out = tmp_path / "out"
    assert message in cli("explain", PHOTO, *arguments, "-o", out, code=2)
    assert not out.exists()


def test_other_inputs(tmp_path: Path) -> None:
    model, out = shared("models", "easy-vqa-keras.onnx"), tmp_path / "out"
    question = np.zeros((1, 27), np.float32)
    question[0, 3] = 1
    np.save(tmp_path / "question.npy", question)
    given = ("explain", PHOTO, "-m", model, "--preprocess", "unit", "-o", out)
    assert "besides the image 'input_1' it takes input_2" in cli(*given, code=2)
    wrong = ("--input", f"input_3={tmp_path / 'question.npy'}")
    assert "Nearest: input_2" in cli(*given, *wrong, code=2)
    np.save(tmp_path / "short.npy", question[:, :5])
    short = ("--input", f"input_2={tmp_path / 'short.npy'}")
    assert "of shape [1, 5]: it takes input_2" in cli(*given, *short, code=2)
    assert not out.exists()
    cli(*given, "--input", f"input_2={tmp_path / 'question.npy'}")
    assert (out / "explanations.json").exists()
