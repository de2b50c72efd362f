"""Options of the pictures at the command line, and contact sheets of everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam import Style
from onnxcam.imaging.decode import decode

MANY = ["-t", "dog", "-t", "0", "--method", "grad-cam", "--method", "layer-cam"]


@pytest.fixture
def explain(folder: Path, call):
    """Explain one photograph; returns exit code, output, errors and the folder of pictures."""

    def run(*options: str):
        code, out, err = call("explain", "photos/a.png", "-m", "model.onnx", *options)
        return code, out, err, folder / "onnxcam-out"

    return run


def test_every_option_is_the_styles(explain) -> None:
    options = ["--alpha", "0.9", "--colormap", "viridis", "--smooth", "--caption"]
    code, _, err, out = explain(*options, "--side-by-side", "--format", "png")
    assert (code, err) == (0, "")
    [found] = onnxcam.Explainer("model.onnx").explain("photos/a.png")
    style = Style(0.9, "viridis", smooth=True, caption=True, side_by_side=True)
    [name] = [p.name for p in out.glob("*.png")]
    np.testing.assert_array_equal(decode(out / name), np.asarray(found.overlay(style)))
    assert found.overlay(style).size != found.overlay().size
    bilinear = found.overlay(style, smooth=False)
    assert (np.asarray(bilinear) != np.asarray(found.overlay(style))).any()


def test_the_defaults_are_the_styles(explain) -> None:
    _, _, _, out = explain("--format", "png")
    [found] = onnxcam.Explainer("model.onnx").explain("photos/a.png")
    [path] = out.glob("*.png")
    np.testing.assert_array_equal(decode(path), np.asarray(found.overlay(Style())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "2"], "alpha = 2.0 and shade = 0.5 must be between 0 and 1"),
        (["--colormap", "rainbows"], "Take turbo, viridis, magma or another"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(explain, options, message) -> None:
    code, _, err, out = explain(*options)
    assert code == 2 and message in err and not out.exists()


def test_one_sheet_of_targets_methods_and_layers(explain) -> None:
    code, text, _, out = explain(*MANY, "--sheet", "--format", "png", "--caption")
    assert code == 0 and "a-sheet.png" in text
    document = json.loads((out / "explanations.json").read_text())
    assert document["images"][0]["sheets"] == ["a-sheet.png"]
    sheet = decode(out / "a-sheet.png")
    explainer = onnxcam.Explainer("model.onnx", method=["grad-cam", "layer-cam"])
    found = explainer.explain("photos/a.png", ["dog", 0])
    assert len(found) == 4
    # Rows of targets, columns of methods; the tiles have no captions of their own.
    width, height = 320, 192
    assert sheet.shape[1] == 2 * width + 8
    line = 2 * 18 + 4
    for one in found:
        row = 1 if one.target == 0 else 0
        column = ["grad-cam", "layer-cam"].index(one.method)
        top, left = row * (height + line), column * (width + 8)
        tile = one.overlay().resize((width, height), Image.Resampling.LANCZOS)
        shown = sheet[top : top + height, left : left + width]
        np.testing.assert_array_equal(shown, np.asarray(tile))
    assert sheet.shape[0] == 2 * (height + line)


def test_a_second_run_keeps_the_name_of_its_sheet(explain) -> None:
    for _ in range(2):
        _, _, _, out = explain("--sheet")
    assert [p.name for p in out.glob("*sheet*")] == ["a-sheet.jpg"]


def test_the_sheet_of_a_kept_record_stays(folder: Path, call) -> None:
    """Another image of the same name, in another run."""
    for image in ("photos/a.png", "photos/more/a.png"):
        call("explain", image, "-m", "model.onnx", "--sheet", "--format", "png")
    out = folder / "onnxcam-out"
    images = json.loads((out / "explanations.json").read_text())["images"]
    assert [i["sheets"] for i in images] == [["a-sheet.png"], ["a-sheet-2.png"]]
    first, second = (decode(out / i["sheets"][0]) for i in images)
    assert (first != second).any()
    [found] = onnxcam.Explainer("model.onnx").explain("photos/a.png")
    np.testing.assert_array_equal(first, np.asarray(onnxcam.contact_sheet([found])))


def test_long_rows_are_cut_and_one_dimension_is_one_run(explain) -> None:
    explain()  # the model lies in the working directory
    explainer = onnxcam.Explainer("model.onnx")
    found = explainer.explain("photos/a.png", "top:5")[:5]
    sheet = np.asarray(onnxcam.contact_sheet(found, alpha=1.0))
    # Four columns: five targets by one method at one layer take two rows.
    assert sheet.shape == (2 * (192 + 18 + 4), 4 * 320 + 3 * 8, 3)
    tile = found[4].overlay(alpha=1.0).resize((320, 192), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(sheet[214 : 214 + 192, :320], np.asarray(tile))
