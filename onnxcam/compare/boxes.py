"""The boxes of two detectors on one image: which go together, and which one is explained.

The reference's surest box is explained in both models, in the candidate as the box that was matched
to it. Where the candidate lost it, its numbers at the same row are explained, if both give rows in
the same fixed order (a cell, an anchor or a query each); lists of the best boxes have none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.targets.boxes import Box, weights_of
from onnxcam.targets.corners import overlaps
from onnxcam.targets.detections import Detected, Detection, probabilities
from onnxcam.targets.weighted import Weights

OVERLAP = 0.5  # of two boxes that go together, as PASCAL VOC counts (Everingham et al. 2010)


@dataclass(frozen=True)
class Boxes(Detected):
    """What a side detects on an image, the surest first; ``place`` is the one that is explained.

    Attributes:
        rows: how many rows the detector gives, and the input's width and height; nothing where rows
            are in no fixed order.
        confidence: the detector's score of what is explained, 0 to 1.
        explained: whether anything is: a detection, or the row where the reference has one.
    """

    rows: tuple[int, ...] = ()
    confidence: float = 0.0
    explained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Boxes:
        """Rebuild from :meth:`to_dict`'s data.

        Raises:
            KeyError, TypeError: it is none.
        """
        every = [
            Detection(**{**one, "box": None if one["box"] is None else tuple(one["box"])})
            for one in data["every"]
        ]
        return Boxes(**{**data, "every": tuple(every), "rows": tuple(data["rows"])})


@dataclass(frozen=True)
class Surest(Box):
    """The surest box of an image; or what another model's surest box is in this one.

    Attributes:
        like: what the other model detects on the image.
    """

    like: Boxes | None = field(default=None, compare=False)  # equal ones share a row of a run

    def weigh(self, values: NDArray[Any]) -> Weights:
        """Return the derivative of the box's number by the detector's; 0 where there is none."""
        every = self.look(values) if self.every is None else self.every
        values = values.astype(np.float64)
        rows = self._rows(values)
        place = self._place(every)
        one = None if place is None else every[place]
        if one is None and self.like is not None and rows == self.like.rows != ():
            one = self._same_row(values, self.like.one)
        if one is None:
            return Weights(np.zeros(values.shape), 0.0, self.text, Boxes(every, None, rows))
        weights, number = weights_of(values, one, self.reading)
        found = Boxes(every, place, rows, one.probability, explained=True)
        return Weights(weights, number, self.text, found)

    def _place(self, every: Sequence[Detection]) -> int | None:
        if self.like is None:
            return 0 if every else None
        if self.like.place is None:
            return None
        return matched(self.like.every, every).get(self.like.place)

    def _same_row(self, values: NDArray[Any], lost: Detection | None) -> Detection | None:
        """Return what the row says of the class of a box that the model does not detect."""
        if lost is None:
            return None
        share = float(probabilities(values, self.reading, self.labels)[lost.anchor, lost.index])
        return replace(lost, box=None, probability=share)

    def _rows(self, values: NDArray[Any]) -> tuple[int, ...]:
        assert self.geometry is not None
        size = (self.geometry.columns.input, self.geometry.rows.input)
        return () if self.reading.final else (*values.shape, *size)


def matched(reference: Sequence[Detection], candidate: Sequence[Detection]) -> dict[int, int]:
    """Return which boxes go together, by their places.

    The candidate's surest comes first and takes of the reference's boxes of its class the one that
    it overlaps most, at least by half, if no surer one has taken it. Where a detector gives no
    boxes, but offsets that only its own tools know, the same row goes with the same row.

    Args:
        reference: the surest first.
        candidate: likewise.

    Returns:
        The places of the candidate's by those of the reference's.
    """
    found: dict[int, int] = {}
    for place, other in enumerate(candidate):
        best, best_overlap = None, OVERLAP
        for n, one in enumerate(reference):
            if n in found or one.index != other.index:
                continue
            overlap = shared(one, other)
            if overlap >= best_overlap and (best is None or overlap > best_overlap):
                best, best_overlap = n, overlap
        if best is not None:
            found[best] = place
    return found


def shared(one: Detection, other: Detection) -> float:
    """Return the intersection of two boxes over their union; without boxes, whether rows agree."""
    if one.box is None or other.box is None:
        return float(one.anchor == other.anchor)
    return float(overlaps(np.asarray(one.box), np.asarray([other.box]))[0])


def compare_boxes(reference: Boxes, candidate: Boxes) -> tuple[dict[str, float], dict[str, int]]:
    """Compare what two detectors see on an image.

    Returns:
        The measures ``agreement``, 1 where the reference's surest box is found again, 0 where it is
        not, or where the candidate alone sees anything; ``found``, which share of the reference's
        boxes is found; ``extra``, which share of the candidate's is not the reference's;
        ``box_iou`` of the surest box, 0 where it is lost; ``confidence_drift``, by how much its
        score differs. Those of which there is nothing to compare are left out. And how many boxes
        are ``found``, ``missed`` and ``extra``.
    """
    pairs = matched(reference.every, candidate.every)
    counts = {
        "found": len(pairs),
        "missed": len(reference.every) - len(pairs),
        "extra": len(candidate.every) - len(pairs),
    }
    measures: dict[str, float] = {}
    if reference.every:
        measures["found"] = len(pairs) / len(reference.every)
    if candidate.every:
        measures["extra"] = counts["extra"] / len(candidate.every)
    one = reference.one
    if one is None or reference.place is None:
        return {**({"agreement": 0.0} if candidate.every else {}), **measures}, counts
    twin = pairs.get(reference.place)
    measures["agreement"] = float(twin is not None)
    if one.box is not None:
        measures["box_iou"] = 0.0 if twin is None else shared(one, candidate.every[twin])
    measures["confidence_drift"] = abs(reference.confidence - candidate.confidence)
    return measures, counts
