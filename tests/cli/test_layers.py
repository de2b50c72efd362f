"""Layers and grids at the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from ..conftest import shared
from ..test_cases import CASES, PHOTO, pytestmark  # noqa: F401
from ..test_grid import transformer
from .test_methods import cli


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").resize((24, 20)).save(path)
    return path


def test_layers_of_one_run(tmp_path: Path) -> None:
    printed = cli(
        "explain", PHOTO, "-m", CASES / "grey.onnx", "-t", "1", "-o", tmp_path, "--layer",
        "sweep", "--format", "png",
    )  # fmt: skip
    document = json.loads((tmp_path / "explanations.json").read_text())
    names = [layer["name"] for layer in document["model"]["layers"]]
    [image] = document["images"]
    assert [e["layers"] for e in image["explanations"]] == [[n] for n in names] and len(names) > 1
    assert all(f"layer  {n}" in printed for n in names)
    for name in [*image["sheets"], *(e["overlay"] for e in image["explanations"])]:
        assert name in printed
        Image.open(tmp_path / name).verify()
    pair = ",".join(names[:2])
    cli(
        "explain", PHOTO, "-m", CASES / "grey.onnx", "-t", "1", "-o", tmp_path, "--layer",
        f"mean:{pair}", "--layer", names[0],
    )  # fmt: skip
    document = json.loads((tmp_path / "explanations.json").read_text())
    found = [(e["layer"], e["layers"]) for e in document["images"][0]["explanations"]]
    assert found == [(f"mean:{pair}", names[:2]), (names[0], names[:1])]


def test_a_grid_as_the_message_says(save, photo, tmp_path: Path) -> None:
    call = ["explain", photo, "-m", save(transformer("20,24")), "--preprocess", "unit", "-o"]
    message = cli(*call, tmp_path / "a", "--layer", "norm", code=2)
    [option] = re.findall(r"--grid \d+x\d+", message)
    cli(*call, tmp_path / "b", "--layer", "norm", *option.split())
    record = json.loads((tmp_path / "b" / "explanations.json").read_text())["images"][0]
    assert record["explanations"][0]["raw"]["shape"] == [5, 6]
    assert "write it as 14x14" in cli(*call, tmp_path / "c", "--grid", "14", code=2)


def test_a_real_network(tmp_path: Path) -> None:
    cli(
        "explain", shared("images", "two_objects", "both.png"), "-m",
        shared("models", "resnet50-keras-w8.onnx"), "-t", "tabby", "--layer", "sweep", "-o",
        tmp_path,
    )  # fmt: skip
    [image] = json.loads((tmp_path / "explanations.json").read_text())["images"]
    rows = [e["raw"]["shape"][0] for e in image["explanations"]]
    assert rows[0] == 7 and rows[-1] == 112 and rows == sorted(rows) and len(rows) == 8
    assert Image.open(tmp_path / image["sheets"][0]).width == 4 * 320 + 3 * 8
