"""Differences, slices, regions, similarity: weighted sums of a tensor's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import MethodError, ScoreError, TargetError
from onnxcam.targets.weighted import Similarity, Weights

from .conftest import small_cnn
from .test_cases import CASES, PHOTO, arrays, case

RNG = np.random.default_rng(12)
IMAGES = RNG.normal(size=(3, 3, 16, 16)).astype("f")
LABELS = ["cat", "dog", "crab", "t-shirt - red", "hat"]
cases = pytest.mark.skipif(not (CASES / "cases.json").exists(), reason=f"no cases at {CASES}")


@pytest.fixture
def cnn(save) -> onnxcam.Explainer:
    return onnxcam.Explainer(save(small_cnn()), preprocess="unit", labels=LABELS)


def close(one: np.ndarray, other: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.abs(other).max() > 1e-6
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def test_a_difference_is_the_difference_of_the_maps(cnn) -> None:
    """Grad-CAM is linear in the score."""
    dog, cat, both, indices = cnn.explain(IMAGES[0], ["dog", "cat", "dog - cat", "1 - 0"])
    close(both.signed, dog.signed - cat.signed)
    np.testing.assert_array_equal(both.signed, indices.signed)
    assert both.score == pytest.approx(dog.score - cat.score, rel=1e-5)
    assert (both.element, both.target, both.rank) == ("dog - cat", None, None)


def test_a_label_may_look_like_a_difference(cnn) -> None:
    [found] = cnn.explain(IMAGES[0], "t-shirt - red")
    assert (found.target, found.element) == (3, None)


def test_the_best_of_several_is_told_for_each_image(cnn) -> None:
    for image in IMAGES:
        best, *singles = cnn.explain(image, ["best of dog, crab,hat", "dog", "crab", "hat"])
        expected = max(singles, key=lambda e: e.score)
        np.testing.assert_allclose(best.signed, expected.signed, rtol=1e-5, atol=1e-7)
        assert best.score == pytest.approx(expected.score, rel=1e-6)


def test_slices_are_sums_means_and_largest_of_elements(cnn) -> None:
    elements = [f"logits[{i}]" for i in range(1, 4)]
    total, mean, largest, point, *singles = cnn.explain(
        IMAGES[0],
        ["logits[1:4]", "logits[1:4]:mean", "logits[1:4]:max", "logits[2]:sum", *elements],
    )
    close(total.signed, sum(e.signed for e in singles))
    close(3 * mean.signed, total.signed)
    best = max(singles, key=lambda e: e.score)
    close(largest.signed, best.signed)
    close(point.signed, singles[1].signed)
    assert total.score == pytest.approx(sum(e.score for e in singles), rel=1e-5)
    assert largest.score == pytest.approx(best.score, rel=1e-6)


def test_a_slice_of_maps_is_complete(save) -> None:
    """Integrated gradients of a mean over a part of an inner tensor add up to what it rose by."""
    explainer = onnxcam.Explainer(
        save(small_cnn()), preprocess="unit", method="integrated-gradients:steps=64"
    )
    image, nothing = (
        explainer.explain(x, "r2[1:3,2:6,:]:mean")[0] for x in (IMAGES[0], 0 * IMAGES[0])
    )
    assert abs(image.score - nothing.score) > 1e-3
    assert image.signed.sum() == pytest.approx(image.score - nothing.score, rel=0.02)


def test_a_batch_equals_singles_and_one_by_one(cnn) -> None:
    targets = ["dog - cat", "best of cat,hat", "logits[:2]", 4, "logits[3]"]
    together = cnn.explain_batch(IMAGES, targets)
    for image, found in zip(IMAGES, together, strict=True):
        for target, one in zip(targets, found, strict=True):
            [single] = cnn.explain(image, target)
            np.testing.assert_allclose(one.signed, single.signed, rtol=1e-4, atol=1e-6)
            assert one.score == pytest.approx(single.score, rel=1e-5)


@pytest.mark.parametrize("method", ["hires-cam", "guided-grad-cam", "occlusion:size=8,stride=8"])
def test_every_method_takes_them(save, method: str) -> None:
    """A difference and the difference of the maps, where the method is linear; else it runs."""
    explainer = onnxcam.Explainer(save(small_cnn()), method=method, preprocess="unit")
    one, two, both = explainer.explain(IMAGES[0], [1, 0, "1 - 0"])
    if method != "guided-grad-cam":
        close(both.signed, one.signed - two.signed, 1e-4)
    assert np.isfinite(both.signed).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("dog - horse", "no such label"),
        ("dog - 9", "out of range"),
        ("best of dog,horse", "no such label"),
        ("logits[:]:median", "'median' is not one of sum, mean, max"),
        ("logits[:,1]", r"has the shape \[5\]; give an index or a slice for each axis"),
        ("logits[9:]", "holds no number"),
        ("nothing[:]", "no tensor 'nothing'"),
        ("top:2 - dog", "must be one class"),
    ],
)
def test_wrong_ones(cnn, target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        cnn.explain(IMAGES[0], target)


def test_regions_need_scores_of_pixels(cnn) -> None:
    with pytest.raises(ScoreError, match="no output has scores of pixels"):
        cnn.explain(IMAGES[0], "region:1")


@dataclass(frozen=True, eq=False)
class Masked:
    """A target of one's own: a class's scores over a given mask."""

    mask: np.ndarray
    index: int
    tensor: str = "logits"
    linear: bool = True

    def weigh(self, values: np.ndarray) -> Weights:
        weights = np.zeros(values.shape)
        weights[self.index] = self.mask
        return Weights(weights, float((weights * values).sum()))


@cases
def test_a_mask_of_ones_own() -> None:
    stored, [want] = arrays("segmentation"), case("segmentation")["wants"]
    explainer = onnxcam.Explainer(CASES / "segmentation.onnx", layer=want["layer"])
    target = Masked(stored["mask.seed"][0, 1], 1)
    [found] = explainer.explain(stored["input.image"][:1], target)
    close(found.signed, stored["mask.signed"][0], 1e-4)
    assert found.score == pytest.approx(stored["mask.number"][0], rel=1e-4)


@cases
def test_a_region_is_the_mask_of_its_pixels() -> None:
    explainer = onnxcam.Explainer(CASES / "segmentation.onnx", preprocess="unit")
    image = arrays("segmentation")["input.image"][:1]
    predicted = arrays("segmentation")["output.logits"][0].argmax(axis=0)
    for index in np.unique(predicted):
        region, masked = explainer.explain(
            image, [f"region:{index}", Masked(predicted == index, int(index))]
        )
        close(region.signed, masked.signed)
        assert region.score == pytest.approx(masked.score, rel=1e-5)
    with pytest.raises(TargetError, match="no pixel of the image|out of range"):
        explainer.explain(image, "region:77")


@cases
def test_similarity_with_a_vector() -> None:
    stored, want = arrays("embedding"), case("embedding")["wants"][0]
    explainer = onnxcam.Explainer(CASES / "embedding.onnx", layer=want["layer"], preprocess="unit")
    image = stored["input.image"][:1]
    [found] = explainer.explain(image, Similarity(stored["similarity.seed"][0]))
    close(found.signed, stored["similarity.signed"][0], 1e-4)
    assert found.score == pytest.approx(stored["similarity.number"][0], rel=1e-4)


@cases
def test_similarity_with_an_image(tmp_path: Path) -> None:
    explainer = onnxcam.Explainer(CASES / "embedding.onnx", preprocess="unit")
    other = explainer.similar_to(CASES / "other.png")
    [found] = explainer.explain(PHOTO, other)
    [again] = explainer.explain(CASES / "other.png", other)
    assert again.score == pytest.approx(1, abs=1e-5) and found.score < 0.99
    assert found.element == f"similarity to {CASES / 'other.png'}"
    with pytest.raises(MethodError, match="does not go with the target"):
        onnxcam.Explainer(CASES / "embedding.onnx", preprocess="unit", method="occlusion").explain(
            PHOTO, other
        )
