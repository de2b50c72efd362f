"""D-RISE of detectors' boxes against its formula, from the model's own outputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.errors import MethodError
from onnxcam.methods.masks import RandomMasks

from .conftest import runtime
from .test_boxes import explainer
from .test_cases import CASES, PHOTO, arrays


def corners(values: np.ndarray, name: str) -> np.ndarray:
    one, other = values[:, :2], values[:, 2:4]
    if name == "detector-ssd":
        return np.concatenate([one, other], axis=1)
    return np.concatenate([one - other / 2, one + other / 2], axis=1)


@pytest.mark.parametrize("name", ["detector-yolo8", "detector-yolo5"])
def test_d_rise_weighs_masks_by_the_likeness_of_boxes(name: str) -> None:
    """Petsiuk et al. 2021, eq. 3-5, from the model's own outputs, less the mean."""
    count, image = 24, arrays(name)["input.image"]
    made = explainer(CASES / f"{name}.onnx", method=f"d-rise:masks={count},cells=3,seed=2")
    session = runtime(made.path)
    masks = RandomMasks(image.shape[2:], count, 3, 0.5, 2)[:]

    def numbers(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        [output] = session.run(None, {"image": x.astype("f")})
        rows = output[0].T if name == "detector-yolo8" else output[0]
        first = 5 if name == "detector-yolo5" else 4
        classes = rows[:, first:].astype(np.float64)
        sure = rows[:, 4] if name == "detector-yolo5" else classes.max(axis=1)
        return corners(rows.astype(np.float64), name), classes, sure

    boxes, classes, _ = numbers(image)
    for found in made.explain(image[0]):
        one, y = found.detected.one, []
        for mask in masks:
            others, shares, sure = numbers(image * mask)
            a, b = boxes[one.anchor], others
            low, high = np.maximum(a[:2], b[:, :2]), np.minimum(a[2:], b[:, 2:])
            shared = np.clip(high - low, 0, None).prod(axis=1)
            both = (a[2:] - a[:2]).prod() + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
            lengths = np.linalg.norm(shares, axis=1) * np.linalg.norm(classes[one.anchor])
            y.append((shared / both * (shares @ classes[one.anchor]) / lengths * sure).max())
        scores = np.array(y)
        assert np.ptp(scores) > 0.01
        right = np.tensordot(scores - scores.mean(), masks, 1) / count / 0.5
        np.testing.assert_allclose(found.signed, right, atol=1e-3 * np.abs(right).max())


def test_d_rise_is_for_boxes_alone() -> None:
    made = explainer(CASES / "detector-yolo8.onnx", method="d-rise:masks=4,cells=2")
    with pytest.raises(MethodError, match="layer-cam takes any target"):
        made.explain(PHOTO, "output0[4,0]")
