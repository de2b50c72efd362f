"""Masks and points of a photograph as targets of a segmentation model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import ImageError, TargetError
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.targets.pixels import AtPixel, Masked

from .cli.test_methods import cli
from .test_cases import CASES, PHOTO, arrays, case, pytestmark  # noqa: F401

MODEL = CASES / "segmentation.onnx"
# What a card does to a photograph [W, H], and where a pixel of it then lies in the 64 x 48 input.
CARDS = {
    "letterbox": ({"resize": "letterbox"}, (32, 48), lambda x, y: (x + 16, y)),
    "letterbox, half": ({"resize": "letterbox"}, (64, 96), lambda x, y: (x // 2 + 16, y // 2)),
    "crop": ({"resize": "shorter", "shorter": 48}, (128, 48), lambda x, y: (x - 32, y)),
    "squash": ({"resize": "squash"}, (128, 144), lambda x, y: (x // 2, y // 3)),
}


def photograph(width: int, height: int) -> Image.Image:
    with Image.open(PHOTO) as photo:
        return photo.convert("RGB").resize((width, height))


def logits(photo: Image.Image, card: dict) -> np.ndarray:
    """What the model gives for a photograph, ``[3, 48, 64]``."""
    preprocess = Preprocess.from_dict({**card, "size": [48, 64], "divide": 255}, "card")
    tensor, _ = preprocess.apply(np.asarray(photo), "NCHW", "float32")
    return onnxruntime.InferenceSession(MODEL).run(None, {"image": tensor})[0][0]


def explainer(card: dict, **options: object) -> onnxcam.Explainer:
    return onnxcam.Explainer(MODEL, preprocess={**card, "divide": 255}, **options)


def test_the_case_with_its_mask() -> None:
    stored, [want] = arrays("segmentation"), case("segmentation")["wants"]
    target = Masked(stored["mask.seed"][0, 1], want["target"]["class"])
    image = stored["input.image"][:1]
    [found] = onnxcam.Explainer(MODEL, layer=want["layer"]).explain(image, target)
    right = stored["mask.signed"][0]
    np.testing.assert_allclose(found.signed, right, rtol=0, atol=1e-4 * np.abs(right).max())
    assert found.score == pytest.approx(stored["mask.number"][0], rel=1e-5)


@pytest.mark.parametrize("name", CARDS)
def test_a_point_is_found_through_the_geometry(name: str) -> None:
    card, size, place = CARDS[name]
    photo = photograph(*size)
    scores = logits(photo, card)
    points = [(size[0] // 2, 5), (size[0] // 2 + 9, size[1] - 1)]
    targets = [f"region:{c}@{x},{y}" for x, y in points for c in ("1", "")]
    found = explainer(card).explain(photo, targets)
    for i, (x, y) in enumerate(points):
        column, row = place(x, y)
        there = scores[:, row, column]
        one, best = found[2 * i : 2 * i + 2]
        assert one.score == pytest.approx(there[1], abs=1e-5)
        assert best.score == pytest.approx(there.max(), abs=1e-5)
        assert best.element == f"region:{there.argmax()}@{x},{y}"
        [element] = explainer(card).explain(photo, f"logits[1,{row},{column}]")
        np.testing.assert_allclose(one.signed, element.signed, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", CARDS)
def test_a_mask_is_the_sum_of_its_points(name: str) -> None:
    """Where an element holds a number of pixels, each counts its part."""
    card, size, place = CARDS[name]
    photo, mask = photograph(*size), np.zeros(size[::-1], bool)
    mask[10:21, size[0] // 2 : size[0] // 2 + 13] = True
    mask[40, size[0] // 2 - 3] = True
    weights = np.zeros((48, 64))
    for y, x in np.argwhere(mask):
        column, row = place(x, y)
        weights[row, column] += 1
    weights /= {"letterbox, half": 4, "squash": 6}.get(name, 1)
    [found] = explainer(card).explain(photo, Masked(mask, 2))
    assert found.score == pytest.approx((logits(photo, card)[2] * weights).sum(), rel=1e-5)


def test_scores_that_are_coarser_than_the_image() -> None:
    """A tensor of stride 4: a pixel is its element's sixteenth part."""
    name = "/Relu_1_output_0"
    seen, photo = explainer({}, score=name, layer="/Relu_output_0"), photograph(64, 48)
    mask = np.zeros((48, 64))
    mask[18:26, 40:42] = 1  # half of columns 10, of rows 4 half, 5 whole, 6 half
    [best] = seen.explain(photo, "region:@43,20")
    k = int((best.element or "").removeprefix("region:").partition("@")[0])
    targets = [f"region:{k}@43,20", Masked(mask, k), f"{name}[{k},5,10]"]
    point, area, element = seen.explain(photo, targets)
    assert point.score == pytest.approx(element.score)
    np.testing.assert_allclose(point.signed, element.signed, rtol=1e-5, atol=1e-7)
    rows = seen.explain(photo, [f"{name}[{k},{row},10]" for row in (4, 5, 6)])
    expected = 0.25 * rows[0].score + 0.5 * rows[1].score + 0.25 * rows[2].score
    assert area.score == pytest.approx(expected, rel=1e-5) and expected > 0


@pytest.mark.parametrize(("photo", "length"), [(50, 7), (7, 50), (33, 48), (640, 1)])
def test_coverage_by_fine_steps(photo: int, length: int) -> None:
    """Squashed along one axis: the mean of the mask at many points of each element."""
    mask = np.random.default_rng(1).random((photo, 1)) > 0.5
    preprocess = Preprocess(size=(48, 1))
    _, geometry = preprocess.apply(np.zeros((photo, 1, 3), np.uint8), "NCHW", "float32")
    found = geometry.coverage(mask, length, 1)[:, 0]
    steps = 20000
    points = (np.arange(length * steps) + 0.5) / (length * steps) * photo
    expected = mask[points.astype(int), 0].reshape(length, steps).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_what_the_network_did_not_see_is_refused() -> None:
    card, size, _ = CARDS["crop"]
    seen, photo = explainer(card), photograph(*size)
    message = "outside what the network saw, X from 32 to 95 and Y from 0 to 47"
    with pytest.raises(TargetError, match=message):
        seen.explain(photo, "region:@31,20")
    assert seen.explain(photo, ["region:@32,0", "region:@95,47"])
    with pytest.raises(TargetError, match="X counts from 0 to 127, Y from 0 to 47"):
        seen.explain(photo, "region:@20,48")
    mask = np.zeros((48, 128))
    with pytest.raises(TargetError, match="no pixel of the image"):
        seen.explain(photo, Masked(mask, 1))
    mask[:, :32] = 1
    with pytest.raises(TargetError, match="no pixel of what the network saw, X from 32"):
        seen.explain(photo, Masked(mask, 1))
    with pytest.raises(TargetError, match=r"the mask has shape \[48, 64\], the image \[48, 128\]"):
        seen.explain(photo, Masked(np.ones((48, 64)), 1))
    with pytest.raises(TargetError, match="count from 0 to 2"):
        seen.explain(photo, [Masked(np.ones((48, 128)), 3), AtPixel(40, 5, 7)])


def test_a_mask_for_each_image_of_a_batch() -> None:
    """Photographs of two sizes: only its own targets are weighed for each."""
    one, other = photograph(32, 48), photograph(64, 96)
    left, right = np.zeros((48, 32)), np.zeros((96, 64))
    left[:20, :10] = right[50:, 30:] = 1
    wanted = [[Masked(left, 1), "region:@3,4"], [Masked(right, 0), "region:2@60,90"]]
    seen = explainer({"resize": "letterbox"})
    together = seen.explain_batch([one, other], per_image=wanted)
    for photo, targets, found in zip([one, other], wanted, together, strict=True):
        for single, both in zip(seen.explain(photo, targets), found, strict=True):
            np.testing.assert_allclose(both.signed, single.signed, rtol=1e-4, atol=1e-7)
            assert (both.score, both.element) == (pytest.approx(single.score), single.element)


def test_masks_and_points_of_the_command_line(tmp_path: Path) -> None:
    card, size, _ = CARDS["letterbox, half"]
    photo = photograph(*size)
    photo.save(tmp_path / "photo.png")
    (tmp_path / "card.toml").write_text('[preprocess]\nresize = "letterbox"\ndivide = 255\n')
    mask = np.zeros(size[::-1], np.uint8)
    mask[30:70, 10:40] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "labels.txt").write_text("road\ncar\nperson\n")
    cli(
        "explain", tmp_path / "photo.png", "-m", MODEL, "--preprocess", tmp_path / "card.toml",
        "--labels", tmp_path / "labels.txt", "-t", "region:car", "-t", "region:2", "--mask",
        tmp_path / "mask.png", "--at", "50,60", "-o", tmp_path / "out",
    )  # fmt: skip
    document = json.loads((tmp_path / "out" / "explanations.json").read_text())
    records = document["images"][0]["explanations"]
    file = tmp_path / "mask.png"
    asked = [f"region:car@{file}", "region:car@50,60", f"region:2@{file}", "region:2@50,60"]
    assert [r["target"] for r in records] == asked
    targets = [Masked(mask, 1), AtPixel(50, 60, 1), Masked(mask, 2), AtPixel(50, 60, 2)]
    for record, right in zip(records, explainer(card).explain(photo, targets), strict=True):
        assert record["score"] == pytest.approx(right.score, rel=1e-5)
    assert len({r["overlay"] for r in records}) == 4

    def refused(*options: object) -> str:
        return cli(
            "explain", tmp_path / "photo.png", "-m", MODEL, "-o", tmp_path / "no", *options, code=2
        )

    assert "add -t region:CLASS" in refused("--mask", file)
    assert "write it as X,Y" in refused("--at", "5")
    assert "no such file" in refused("--mask", tmp_path / "none.png", "-t", "region:1")
    assert not (tmp_path / "no").exists()


def test_the_class_at_a_point_has_its_label(tmp_path: Path) -> None:
    photo = photograph(64, 48)
    best = logits(photo, {}).argmax(axis=0)[7, 9]
    seen = explainer({}, labels=["road", "car", "person"])
    [found] = seen.explain(photo, "region:@9,7")
    assert found.element == f"region:{('road', 'car', 'person')[best]}@9,7"
    [again] = seen.explain(photo, found.element)
    np.testing.assert_array_equal(again.signed, found.signed)


def test_a_label_may_hold_an_at_sign() -> None:
    seen, photo = explainer({}, labels=["a", "b", "c@1,2"]), photograph(64, 48)
    found = seen.explain(photo, ["region:c@1,2", "region:2", "region:b@1,2"])
    np.testing.assert_array_equal(found[0].signed, found[1].signed)
    assert found[2].score == pytest.approx(logits(photo, {})[1, 2, 1], abs=1e-5)


def test_pixels_have_classes_of_their_own(tmp_path: Path) -> None:
    """A second head of two classes does not bound those of the pixels."""
    model = onnx.load(MODEL)
    node = onnx.helper.make_node
    model.graph.node.extend([
        node("ReduceMean", ["/Relu_1_output_0"], ["mean"], axes=[2, 3], keepdims=0),
        node("Slice", ["mean", "nil", "two", "one"], ["class_scores"]),
    ])  # fmt: skip
    for name, number in (("nil", 0), ("one", 1), ("two", 2)):
        array = onnx.numpy_helper.from_array(np.array([number]), name)
        model.graph.initializer.append(array)
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info("class_scores", kind, ["N", 2]))
    onnx.save(model, tmp_path / "two.onnx")
    seen = onnxcam.Explainer(tmp_path / "two.onnx", preprocess="unit")
    assert seen.plan.classes == 2
    photo = photograph(64, 48)
    right = explainer({}).explain(photo, "region:2@9,7")[0].score
    assert seen.explain(photo, "region:2@9,7")[0].score == pytest.approx(right, rel=1e-5)
    assert seen.explain(photo, "region:2")[0].element == "region:2"


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    seen, photo = explainer({}), photograph(64, 48)
    inside = np.zeros((48, 64), np.uint16)
    inside[3:9, 5:12] = 1  # of 65535
    picture, file = Image.fromarray(inside), tmp_path / "mask.png"
    picture.save(file)
    deep, right = seen.explain(photo, [f"region:1@{file}", Masked(inside, 1)])
    assert deep.score == pytest.approx(right.score)
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "mask.jpg")
    with pytest.raises(ImageError, match="without loss"):
        seen.explain(photo, f"region:1@{tmp_path / 'mask.jpg'}")
    Image.new("RGBA", (64, 48)).save(file)
    with pytest.raises(ImageError, match="without alpha"):
        seen.explain(photo, f"region:1@{file}")
    with pytest.raises(TargetError, match=r"write region:CLASS@X,Y, region:@X,Y or"):
        seen.explain(photo, f"region:@{file}")
