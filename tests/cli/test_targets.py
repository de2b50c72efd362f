"""Targets, hints and lists of the command line, on cases and real models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnxcam

from ..conftest import shared
from ..test_cases import CASES, PHOTO, pytestmark  # noqa: F401
from .test_methods import cli


def explained(model: str, out: Path, *options: object) -> list[dict]:
    cli("explain", PHOTO, "-m", CASES / model, "--preprocess", "unit", "-o", out, *options)
    document = json.loads((out / "explanations.json").read_text())
    return list(document["images"][0]["explanations"])


def test_targets_of_every_kind_in_one_call(tmp_path: Path) -> None:
    found = explained(
        "boxes-first.onnx", tmp_path, "-t", "3", "-t", "3 - 1", "-t", "best of 0,2,3",
        "-t", "boxes[1]", "-t", "boxes[:2]:mean", "-t", "rank:2",
    )  # fmt: skip
    assert [r["target"] for r in found][:5] == [
        3,
        "3 - 1",
        "best of 0,2,3",
        "boxes[1]",
        "boxes[:2]:mean",
    ]
    assert found[5]["rank"] == 2
    assert len({r["overlay"] for r in found}) == 6


def test_a_region_and_a_reference(tmp_path: Path) -> None:
    message = cli(
        "explain", PHOTO, "-m", CASES / "segmentation.onnx", "--preprocess", "unit", "-o",
        tmp_path / "a", "-t", "region:9", code=2,
    )  # fmt: skip
    assert "count from 0 to 2" in message
    message = cli("export", CASES / "embedding.onnx", "-o", tmp_path / "no.onnx", code=2)
    assert "onnxcam explain --reference IMAGE" in message
    [found] = explained("embedding.onnx", tmp_path / "b", "--reference", CASES / "other.png")
    assert found["target"] == f"similarity to {CASES / 'other.png'}"


def test_every_tensor_is_listed() -> None:
    printed = cli("inspect", CASES / "nms.onnx", "--tensors")
    assert "every_score float32[1, 4, 60]" in printed
    assert len(printed.splitlines()) > 20


def test_one_class_for_every_image_is_hinted_at(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.png").write_bytes(onnxcam.default_photograph().read_bytes())
    command = [sys.executable, "-m", "onnxcam", "explain", str(folder), "-o", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "every image got one class" in done.stderr
    assert "--try IMAGE" in done.stderr


def test_wrong_ranges_and_references(tmp_path: Path) -> None:
    assert "write it as 0:4095" in cli(
        "explain", PHOTO, "-m", CASES / "grey.onnx", "--range", "x", "-o", tmp_path / "o", code=2
    )
    assert "no such file" in cli(
        "explain", PHOTO, "-m", CASES / "embedding.onnx", "--reference", "missing.png", "-o",
        tmp_path / "o", code=2,
    )  # fmt: skip
    assert not (tmp_path / "o").exists()


def test_the_twelve_real_models(tmp_path: Path) -> None:
    """Each for what it is: classes, a question and an image, a policy with a state, saliency."""
    both = shared("images", "two_objects", "both.png")
    options = {
        "easy-vqa-keras": ["--input", "input_2=zeros"],
        "vit-s-saliency-w8": ["-t", "region:0"],
    }
    models = sorted(shared("models").glob("*.onnx"))
    assert len(models) == 12
    for model in models:
        out = tmp_path / model.stem
        cli("explain", both, "-m", model, "-o", out, "--no-cache", *options.get(model.stem, []))
        [image] = json.loads((out / "explanations.json").read_text())["images"]
        assert (
            len(image["explanations"]) == 1 and (out / image["explanations"][0]["overlay"]).exists()
        )


def test_every_refusal_names_the_page_of_targets(tmp_path: Path) -> None:
    out = ("-o", tmp_path, "--preprocess", "unit")
    calls = {
        "ScoreError": ("segmentation.onnx", ()),
        "TargetError": ("boxes-first.onnx", ("-t", "99")),
        "LayerError": ("boxes-first.onnx", ("--layer", "nowhere")),
    }
    for model, options in calls.values():
        call = [sys.executable, "-m", "onnxcam", "explain", PHOTO, "-m", CASES / model, *out]
        ended = subprocess.run([*map(str, call), *options], capture_output=True, text=True)
        assert ended.returncode == 2
        assert ended.stderr.count("'onnxcam targets' lists what can be explained.") == 1
    page = Path(__file__).parents[2] / "docs" / "targets.md"
    assert cli("targets") == page.read_text("utf-8")
