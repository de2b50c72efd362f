"""What a detector sees: boxes, classes and scores of its numbers, the surest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.targets.classes import sigmoid
from onnxcam.targets.corners import Geometry, Reading, corners_of, in_photo, overlaps

Array = NDArray[Any]
THRESHOLD = 0.25  # of scores, as detectors' own tools have it
_OVERLAP = 0.5  # of two boxes of one class, above which the less sure one is dropped
_MOST = 300
_MANY = 0.5
_MANY_CLASSES = 1000


@dataclass(frozen=True)
class Detection:
    """One thing that the detector sees.

    Attributes:
        index: the class.
        label: its name, ``None`` where labels are not known.
        probability: the detector's score, 0 to 1.
        box: left, top, right, bottom in pixels of the photograph; ``None`` where the model gives
            offsets from anchors that only its own tools know.
        anchor: the row of the detector's output.
    """

    index: int
    label: str | None
    probability: float
    box: tuple[float, float, float, float] | None
    anchor: int

    @property
    def name(self) -> str:
        """The label, or the class's index."""
        return self.label or f"class {self.index}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        names = ("left", "top", "right", "bottom")
        box = {n: round(v, 1) for n, v in zip(names, self.box or (), strict=False)}
        return {
            "class": self.index,
            "label": self.label,
            "probability": self.probability,
            "box": box or None,
            "anchor": self.anchor,
        }


@dataclass(frozen=True)
class Detected:
    """All detections of an image, the surest first, and which one is explained."""

    every: tuple[Detection, ...]
    place: int | None

    @property
    def one(self) -> Detection | None:
        """The explained one."""
        return None if self.place is None else self.every[self.place]


def detections(
    values: Array, reading: Reading, geometry: Geometry, labels: Sequence[str] | None
) -> list[Detection]:
    """Return what a detector sees, the surest first.

    Args:
        values: ``[A, 4 + S]`` float64, boxes and scores before they are squashed.
        reading: how they are read.
        geometry: where the photograph lies in the input.
        labels: names of classes.
    """
    anchors, classes, sure = _candidates(values, reading, labels)
    order = np.argsort(-sure, kind="stable")
    anchors, classes, sure = anchors[order], classes[order], sure[order]
    size = (geometry.columns.input, geometry.rows.input)
    boxes = corners_of(values[:, :4], anchors, reading, size)
    kept = np.arange(len(anchors))
    if not reading.final and boxes is not None:
        kept = _apart(boxes[anchors], classes, reading)
    found = []
    for n in kept[:_MOST]:
        place, anchor = int(classes[n]), int(anchors[n])
        label = labels[place] if labels and place < len(labels) else None
        corners = None if boxes is None else in_photo(boxes[anchor], geometry)
        found.append(Detection(place, label, float(sure[n]), corners, anchor))
    return found


class Likeness:
    """How like boxes are to some of one image's (D-RISE, Petsiuk et al. 2021, eq. 3-5).

    The likeness of two boxes is their overlap, times the cosine of their classes' probabilities,
    times the objectness of the other; where the detector has none, its highest probability. How the
    numbers are read is decided on the clean image.
    """

    def __init__(
        self,
        clean: Array,
        anchors: Sequence[int | None],
        reading: Reading,
        geometry: Geometry,
        labels: Sequence[str] | None,
    ) -> None:
        """Take the clean image's numbers ``[A, 4 + S]``, and the anchors of boxes on it.

        Raises:
            MethodError: the boxes are offsets that only the model's own tools know.
        """
        self._reading, self._anchors = reading, anchors
        self._size = (geometry.columns.input, geometry.rows.input)
        clean = clean.astype(np.float64)
        self._kept = _candidates(clean, reading, labels)[0]
        self._kind = kind_of(clean, reading, labels)
        self._nothing: int | None = None
        if self._kind == "Softmax" and not reading.final:
            self._nothing = _background(_softmax(_scores(clean, reading)))
        self._boxes, self._classes, _ = self._read(clean)

    def of(self, values: Array) -> Array:
        """Return the likeness of the best of an image's boxes to each of those, ``[T]``."""
        boxes, classes, sure = self._read(values.astype(np.float64))
        found = np.zeros(len(self._anchors))
        for t, anchor in enumerate(self._anchors):
            if anchor is not None:
                overlap = overlaps(self._boxes[anchor], boxes)
                found[t] = (overlap * (classes @ self._classes[anchor]) * sure).max()
        return found

    def _read(self, values: Array) -> tuple[Array, Array, Array]:
        """Return corners, probabilities of classes at length 1, and objectness of every anchor."""
        boxes = corners_of(values[:, :4], self._kept, self._reading, self._size)
        if boxes is None:
            raise MethodError(
                "d-rise compares boxes, and this detector gives offsets from anchors that are not "
                "in the file. layer-cam explains its boxes."
            )
        first = sigmoid(values[:, 4]) if self._kind else values[:, 4]
        if self._reading.final:  # one class each: its turns are at right angles to all others
            classes = values[:, 5, None] == np.arange(_MANY_CLASSES)
            return boxes, classes.astype(np.float64), first
        scores = _scores(values, self._reading)
        if self._kind == "Softmax":
            shares = _softmax(scores)
            shares[:, self._nothing] = 0
        else:
            shares = sigmoid(scores) if self._kind else scores
        sure = first if self._reading.objectness else shares.max(axis=1)
        lengths = np.linalg.norm(shares, axis=1, keepdims=True)
        return boxes, shares / np.where(lengths > 0, lengths, 1), sure


class _Sums(Protocol):
    @property
    def detected(self) -> Sequence[Sequence[Any]]: ...


class _Item(Protocol):
    @property
    def geometry(self) -> Geometry: ...


def compared(
    sums: _Sums | None, n: int, reading: Reading | None, item: _Item, labels: Sequence[str] | None
) -> Callable[[Array], Callable[[Array], Array]] | None:
    """Return what makes :meth:`Likeness.of` of an image's numbers; ``None`` without boxes."""
    if reading is None or sums is None:
        return None
    ones = [None if d[n] is None or d[n].one is None else d[n].one.anchor for d in sums.detected]
    return lambda clean: Likeness(clean, ones, reading, item.geometry, labels).of


def _softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Array = shares / shares.sum(axis=1, keepdims=True)
    return found


def least_of(reading: Reading) -> float:
    """Return the score above which something is a detection."""
    return THRESHOLD if reading.threshold is None else reading.threshold


def kind_of(values: Array, reading: Reading, labels: Sequence[str] | None) -> str:
    """Return what makes probabilities of the scores: Sigmoid, Softmax, or nothing."""
    if reading.squashed:
        return reading.squashed.removeprefix("Log")
    scores = values[:, 4:]
    if not reading.final and ((scores >= 0) & (scores <= 1)).all():
        return ""
    if reading.final:
        return "" if ((scores[:, 0] >= 0) & (scores[:, 0] <= 1)).all() else "Sigmoid"
    if labels:
        return "Softmax" if scores.shape[1] == len(labels) + 1 else "Sigmoid"
    # DETR has a last class for nothing, which most of its boxes are.
    nothing = scores.argmax(axis=1) == scores.shape[1] - 1
    return "Softmax" if scores.shape[1] > 1 and nothing.mean() > _MANY else "Sigmoid"


def _scores(values: Array, reading: Reading) -> Array:
    first = 4 + reading.objectness
    return values[:, first : None if reading.classes is None else first + reading.classes]


def _candidates(
    values: Array, reading: Reading, labels: Sequence[str] | None
) -> tuple[Array, Array, Array]:
    """Return anchors, classes and scores that are sure enough.

    An anchor has one class, the best, but for those that the model's own NonMaxSuppression
    takes, which looks at each class by itself.
    """
    least = least_of(reading)
    if reading.final:
        sure = sigmoid(values[:, 4]) if kind_of(values, reading, labels) else values[:, 4]
        sure = values[:, 6] if reading.given else sure
        kept = np.flatnonzero(sure > least)
        return kept, values[kept, 5].astype(np.int64), sure[kept]
    shares = probabilities(values, reading, labels)
    if reading.most is None:
        best = shares.argmax(axis=1)
        kept = np.flatnonzero(shares.max(axis=1) > least)
        return kept, best[kept], shares[kept, best[kept]]
    anchors, classes = np.nonzero(shares > least)
    return anchors, classes, shares[anchors, classes]


def probabilities(values: Array, reading: Reading, labels: Sequence[str] | None) -> Array:
    """Return the score that the detector gives to every row and class, ``[A, C]``, 0 to 1.

    Args:
        values: as :func:`detections` takes them; not of rows that have one class each.
        reading: how they are read.
        labels: names of classes.
    """
    kind, scores = kind_of(values, reading, labels), _scores(values, reading)
    if kind == "Softmax":
        shares = _softmax(scores)
        shares[:, _background(shares)] = 0
    else:
        shares = sigmoid(scores) if kind else scores.copy()
    if reading.objectness:
        shares *= (sigmoid(values[:, 4]) if kind else values[:, 4])[:, None]
    return shares


def _background(shares: Array) -> int:
    """Return the class that stands for nothing: the first or the last, as most anchors say."""
    best = shares.argmax(axis=1)
    last = shares.shape[1] - 1
    return 0 if (best == 0).sum() >= (best == last).sum() else last


def _apart(boxes: Array, classes: Array, reading: Reading) -> Array:
    """Return which boxes are left when those that overlap a surer one of their class are not.

    Non-maximum suppression; the surest box comes first.
    """
    most = _MOST if reading.most is None else reading.most
    overlap = _OVERLAP if reading.overlap is None else reading.overlap
    count = min(len(boxes), 10 * _MOST)
    left, found = np.ones(count, bool), list[int]()
    for n in range(count):
        if not left[n]:
            continue
        found.append(n)
        if len(found) == _MOST:
            break
        same = np.flatnonzero(left & (classes[:count] == classes[n]))
        same = same[same > n]
        if (classes[found] == classes[n]).sum() >= most:
            left[same] = False
        else:
            left[same] = overlaps(boxes[n], boxes[same]) <= overlap
    return np.array(found, np.intp)
