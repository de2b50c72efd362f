"""Rows of the best boxes, which keypoints, an angle or the model's own score may follow."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.imaging.preprocess import Geometry, Placement
from onnxcam.surgeon.plan import DetectorFacts
from onnxcam.targets.detections import detections

ROWS = np.array([[10, 10, 30, 40, 0.9, 1, 0.1, 55], [5, 8, 20, 30, 0.2, 0, 0.8, 60]], np.float64)


@pytest.mark.parametrize(
    ("columns", "given", "seen"),
    [
        (6, False, [(1, 0.9)]),
        (8, False, [(1, 0.9)]),  # what follows is a keypoint
        (7, False, [(1, 0.9)]),  # or an angle
        (7, True, [(0, 0.8)]),  # or the score, before it another form of it
    ],
)
def test_which_column_is_the_score(
    columns: int, given: bool, seen: list[tuple[int, float]]
) -> None:
    whole = Geometry(Placement(64, 64, 1.0, 0.0), Placement(64, 64, 1.0, 0.0))
    reading = DetectorFacts(final=True, given=given, corners=True)
    found = detections(ROWS[:, :columns], reading, whole, None)
    assert [(d.index, d.probability) for d in found] == seen
