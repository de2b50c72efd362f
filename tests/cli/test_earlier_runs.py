"""What earlier runs left in an output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxcam import Explainer, explain_files
from onnxcam.imaging.decode import decode

from ..conftest import small_cnn
from .conftest import PIXELS


@pytest.fixture
def folder(folder: Path) -> Path:
    """A working directory with a model, and three photographs, two of the same name."""
    Image.fromarray(np.roll(PIXELS, 14, axis=1)).save(folder / "photos" / "b.png")
    return folder


def run(*images: str, out: str = "out", target: str = "dog", **options: Any) -> dict[str, Any]:
    explainer = Explainer("model.onnx", **options)
    results = list(explain_files(explainer, images, target, out=out, format="png"))
    assert results
    return records(out)


def records(out: str = "out", name: str = "explanations.json") -> dict[str, Any]:
    return json.loads((Path(out) / name).read_text("utf-8"))


def pictures(document: dict[str, Any]) -> dict[str, list[str]]:
    return {e["image"]: [r["overlay"] for r in e["explanations"]] for e in document["images"]}


def check_pictures(out: str = "out") -> None:
    """Every record's picture is of its own image, layer and target."""
    seen: list[str] = []
    for file in Path(out).glob("explanations*.json"):
        document = records(out, file.name)
        for entry in document["images"]:
            for record in entry["explanations"]:
                explainer = Explainer("model.onnx", layer=record["layer"])
                [wanted] = explainer.explain(entry["image"], record["target"])
                shown = decode(Path(out) / record["overlay"])
                np.testing.assert_array_equal(shown, np.asarray(wanted.overlay()))
                seen.append(record["overlay"])
    assert len(seen) == len(set(seen))


def test_other_images_of_the_same_model_stay(folder: Path) -> None:
    run("photos/a.png")
    document = run("photos/more/a.png", "photos/b.png")
    assert pictures(document) == {
        "photos/a.png": ["a-3-dog.png"],
        "photos/more/a.png": ["a-3-dog-2.png"],
        "photos/b.png": ["b-3-dog.png"],
    }
    check_pictures()
    again = run("photos")  # the same pictures, not more of them
    assert {k: sorted(v) for k, v in pictures(again).items()} == pictures(document)
    assert len(list(Path("out").glob("*.png"))) == 3
    assert [f.name for f in Path("out").glob("*.json")] == ["explanations.json"]


def test_an_image_that_is_explained_again_has_its_new_records(folder: Path) -> None:
    run("photos/a.png", "photos/b.png")
    document = run("photos/b.png", target="ant")
    assert pictures(document) == {
        "photos/a.png": ["a-3-dog.png"],
        "photos/b.png": ["b-0-ant.png"],
    }
    check_pictures()


def test_failed_images_stay_and_go(folder: Path) -> None:
    run("photos/a.png", "gone.png")
    document = run("photos/b.png")
    assert [f["image"] for f in document["failed"]] == ["gone.png"]
    Image.fromarray(PIXELS).save("gone.png")
    document = run("gone.png")
    assert document["failed"] == [] and len(document["images"]) == 3


def test_records_of_another_layer_are_renamed(folder: Path) -> None:
    for layer in ("r2", "r1", "r2"):
        run("photos/a.png", layer=layer)
    found = {name: records(name=name)["model"]["layer"] for name in (
        "explanations-1.json", "explanations-2.json", "explanations.json"
    )}  # fmt: skip
    assert list(found.values()) == ["r2", "r1", "r2"]
    check_pictures()


def test_a_model_that_was_trained_again_is_another_one(folder: Path) -> None:
    run("photos/a.png")
    (folder / "model.onnx").write_bytes(small_cnn().SerializeToString())
    document = run("photos/b.png")
    assert list(pictures(document)) == ["photos/b.png"]
    assert list(pictures(records(name="explanations-1.json"))) == ["photos/a.png"]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [3], "failed": []}', '{"images": 1}', "ÿ"])
def test_a_file_of_that_name_that_is_no_record(folder: Path, text: str) -> None:
    Path("out").mkdir()
    Path("out/explanations.json").write_text(text, "latin-1")
    document = run("photos/a.png")
    assert list(pictures(document)) == ["photos/a.png"]
    assert Path("out/explanations-1.json").read_text("latin-1") == text


def test_a_run_that_is_broken_off_loses_nothing(folder: Path) -> None:
    run("photos")
    explainer = Explainer("model.onnx")
    for _ in explain_files(explainer, ["photos"], "ant", out="out", format="png"):
        break
    found = pictures(records())
    assert len(found) == 3 and sum("ant" in f for [f] in found.values()) == 1
    check_pictures()


def test_an_output_folder_inside_the_images_is_not_explained(folder: Path) -> None:
    run("photos", out="photos/out")
    document = run("photos", out="photos/out")
    assert sorted(pictures(document)) == ["photos/a.png", "photos/b.png", "photos/more/a.png"]
    document = run("photos/**/*.png", out="photos/out")
    assert sorted(pictures(document)) == ["photos/a.png", "photos/b.png", "photos/more/a.png"]
    document = run("photos", out="elsewhere")
    assert sorted(pictures(document)) == ["photos/a.png", "photos/b.png", "photos/more/a.png"]
    Path("link").symlink_to("photos")
    assert not [name for name in pictures(run("link", out="photos/out")) if "/out/" in name]
