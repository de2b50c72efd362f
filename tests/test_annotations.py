"""Boxes that somebody annotated, and the map's own: read, drawn and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import AnnotationError
from onnxcam.imaging.boxes import Annotation
from onnxcam.inputs.annotations import read_annotations

from .conftest import DATA, shared

PHOTO = onnxcam.default_photograph()
COCO = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 8, "file_name": "train/b.jpg"},
        {"id": 9, "file_name": "test/b.jpg"},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}],
    "annotations": [
        {"image_id": 7, "category_id": 5, "bbox": [1.5, 2, 10, 20]},
        {"image_id": 9, "category_id": 3, "bbox": [0, 0, 4, 5]},
    ],
}
VOC = """<annotation><filename>a.jpg</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><bndbox>
<xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def test_cocos_json(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    found = read_annotations([path])
    assert found.of("some/a.jpg", (40, 30)) == (Annotation("cat", (1.5, 2, 11.5, 22)),)
    assert found.of("test/b.jpg") == (Annotation("dog", (0, 0, 4, 5)),)
    assert found.of("train/b.jpg") == () == found.of("c.jpg")
    with pytest.raises(AnnotationError, match="2 entries are named b.jpg. Name the images with"):
        found.of("b.jpg")
    with pytest.raises(AnnotationError, match="of a.jpg are of an image of 40x30 pixels, and x/a"):
        found.of("x/a.jpg", (30, 40))


def test_pascal_vocs_xml_counts_from_one(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(VOC)
    for given in (tmp_path, tmp_path / "a.xml"):
        whole = (Annotation("dog", (0, 1, 40, 30)),)
        assert read_annotations([given]).of("photos/a.jpg", (40, 30)) == whole


def test_the_annotated_photographs() -> None:
    """The same objects in three forms: the list's VOC boxes are a pixel off, as it was made."""
    listed = read_annotations([shared("images", "benchmark.json")])
    coco = read_annotations([shared("images", "coco", "instances.json")])
    voc = read_annotations([shared("images", "voc")])
    images = DATA / "images"
    for path in sorted((images / "coco").glob("*.jpg")):
        size = Image.open(path).size
        both = [sorted(a.of(path, size)) for a in (listed, coco)]
        for one, other in zip(*both, strict=True):
            assert one.label == other.label
            np.testing.assert_allclose(one.box, other.box, atol=0.2)
    for path in sorted((images / "voc").glob("*.jpg")):
        both = [a.of(path, Image.open(path).size) for a in (listed, voc)]
        for one, other in zip(*both, strict=True):
            np.testing.assert_allclose(np.subtract(one.box, other.box), [1, 1, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "{}", "'categories' is missing"),
        ("a.json", "[1]", "It must be COCO's JSON"),
        ("a.json", "{", "is no file of annotations"),
        (
            "a.json",
            '[{"file": "a.jpg", "objects": [{"category": "x", "bbox": [1, 2, -3, 4]}]}]',
            r"the box \[1.0, 2.0, -2.0, 6.0\] of 'x'",
        ),
        (
            "a.json",
            '[{"file": "a.jpg", "objects": [{"category": "x", "bbox": [1, 2, 3]}]}]',
            "bbox",
        ),
        ("a.xml", "<annotation>", "is no file of annotations"),
        ("a.xml", "<svg/>", "<svg> in place of <annotation>"),
        ("a.xml", VOC.replace("<xmin>1</xmin>", ""), "the box"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError, match=why) as told:
        read_annotations([tmp_path / name])
    assert str(tmp_path / name) in str(told.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_annotations([tmp_path / "none.json"])
    with pytest.raises(AnnotationError, match="no XML files of annotations in this folder"):
        read_annotations([tmp_path])


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union, counted in fine squares."""
    fine = np.zeros((2, 2 * 460, 2 * 460), bool)
    for mask, (left, top, right, bottom) in zip(fine, (one, other), strict=True):
        mask[round(2 * top) : round(2 * bottom), round(2 * left) : round(2 * right)] = True
    return float((fine[0] & fine[1]).sum() / (fine[0] | fine[1]).sum())


def test_drawn_and_recorded(folder_of_a_cat) -> None:
    folder, call = folder_of_a_cat
    photo = Image.open(folder / "cat.png")
    boxes = [("cat", [100, 50, 200.5, 220]), ("corner", [0, 0, 20, 10])]
    entry = {
        "file": "cat.png",
        "width": photo.width,
        "height": photo.height,
        "objects": [{"category": n, "bbox": b} for n, b in boxes],
    }
    (folder / "boxes.json").write_text(json.dumps([entry]))
    plain = call("-o", "plain")
    record = call("--boxes", "map", "--boxes", "boxes.json", "-o", "out")
    segment, peak = tuple(record["segment"].values()), record["peak"]
    assert {k: v for k, v in record.items() if k != "annotations"} == plain
    for (label, (x, y, w, h)), one in zip(boxes, record["annotations"], strict=True):
        assert one["label"] == label
        edges = dict(zip(("left", "top", "right", "bottom"), (x, y, x + w, y + h), strict=True))
        assert one["box"] == edges
        assert one["iou"] == pytest.approx(overlap(segment, (x, y, x + w, y + h)), abs=1e-3)
        inside = x <= peak["x"] < x + w and y <= peak["y"] < y + h
        assert one["peak_inside"] == inside
    drawn = np.asarray(Image.open(folder / "out" / record["overlay"]).convert("RGB"))
    left, top, right, bottom = segment
    colours = {"yellow": (drawn[..., 2] < 150) & (drawn[..., :2].min(axis=-1) > 200)}
    colours["green"] = (drawn[..., 1] > 200) & (drawn[..., 0] < 160)
    middle = (top + bottom) // 2
    for x in (left + 1, right - 2):
        assert colours["yellow"][middle - 3 : middle + 3, max(x - 2, 0) : x + 3].any(axis=1).all()
    assert colours["green"][130:140, 99:104].any(axis=1).all()


@pytest.fixture
def folder_of_a_cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with a photograph, and a call of the command line there: its only record."""
    import sys

    from onnxcam import cli

    photo = PHOTO if isinstance(PHOTO, Image.Image) else Image.open(PHOTO)
    photo.convert("RGB").save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str):
        options = ["explain", "cat.png", "--format", "png", *arguments]
        monkeypatch.setattr(sys, "argv", ["onnxcam", *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code in (0, None)
        out = tmp_path / arguments[arguments.index("-o") + 1]
        document = json.loads((out / "explanations.json").read_text("utf-8"))
        return document["images"][0]["explanations"][0]

    return tmp_path, call


def test_boxes_of_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(COCO))
    made = onnxcam.Explainer(onnxcam.default_model())
    with pytest.raises(AnnotationError, match="of other images only: a.jpg, train/b.jpg, test/b"):
        onnxcam.explain_files(
            made, [PHOTO], out=tmp_path / "o", annotations=[tmp_path / "boxes.json"]
        )


def test_an_image_of_another_size_fails_alone(tmp_path: Path) -> None:
    for name, size in (("a.jpg", (30, 40)), ("c.jpg", (30, 40))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    (tmp_path / "boxes.json").write_text(json.dumps(COCO))
    made = onnxcam.Explainer(onnxcam.default_model())
    run = onnxcam.explain_files(
        made, [tmp_path], out=tmp_path / "o", annotations=[tmp_path / "boxes.json"]
    )
    errors = [result.error for result in run]
    assert "an image of 40x30 pixels" in errors[0] and errors[1] is None
