"""Detections as targets: ``box:0``, ``box:person``, ``box:person/1``, ``box:@120,80``.

What is explained is the logit of the box's class; with objectness log p(object) + log p(class),
the logarithm of the score that the detector gives. Which box that is, is taken as fixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError
from onnxcam.targets.classes import sigmoid
from onnxcam.targets.corners import Geometry, Reading
from onnxcam.targets.detections import (
    Detected,
    Detection,
    detections,
    kind_of,
    least_of,
)
from onnxcam.targets.weighted import Weights

Array = NDArray[Any]
DETECTIONS = "onnxcam:detections"  # is found, see onnxcam.surgeon.words
_POINT = r"\s*(@\s*(?P<x>\d+)\s*,\s*(?P<y>\d+)\s*)?"
_FORM = re.compile(rf"box:\s*(?P<what>[^@]*?){_POINT}", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """One detection of an image.

    Attributes:
        text: as the user wrote it.
        reading: how the detector's numbers are read.
        labels: names of classes.
        index: the class that it must be of.
        number: which of these detections, 0 the surest.
        point: column and row of the photograph that it must hold.
        optional: whether an image without it is passed over.
        geometry: where the image lies in the input.
        every: all detections of the image where they are known, see :meth:`look`.
    """

    text: str
    reading: Reading = field(compare=False)
    labels: tuple[str, ...] | None = field(default=None, compare=False)
    index: int | None = None
    number: int = 0
    point: tuple[int, int] | None = None
    optional: bool = False
    geometry: Geometry | None = field(default=None, compare=False)
    every: tuple[Detection, ...] | None = field(default=None, compare=False)
    tensor: str = DETECTIONS
    linear: bool = False

    def __str__(self) -> str:
        return self.text

    def located(self, geometry: Geometry) -> Box:
        """Return the same target on an image of this geometry."""
        return replace(self, geometry=geometry)

    def look(self, values: Array) -> tuple[Detection, ...]:
        """Return all detections of the image, which its boxes share."""
        assert self.geometry is not None
        values = values.astype(np.float64)
        return tuple(detections(values, self.reading, self.geometry, self.labels))

    def weigh(self, values: Array) -> Weights:
        """Return the derivative of the box's number by the detector's.

        Raises:
            TargetError: there is no such box.
        """
        every = self.look(values) if self.every is None else self.every
        values = values.astype(np.float64)
        fitting = [i for i, d in enumerate(every) if self._fits(d)]
        if self.number >= len(fitting):
            if self.optional:
                return Weights(np.zeros(values.shape), 0.0, self.text, Detected(every, None))
            raise TargetError(self._missing(every, fitting))
        place = fitting[self.number]
        found = every[place]
        weights, number = weights_of(values, found, self.reading)
        said = f"box:{place} {found.name}"
        return Weights(weights, number, said, Detected(every, place))

    def _fits(self, found: Detection) -> bool:
        if self.index is not None and found.index != self.index:
            return False
        if self.point is None:
            return True
        if found.box is None:
            return False
        (x, y), (left, top, right, bottom) = self.point, found.box
        return left <= x <= right and top <= y <= bottom

    def _missing(self, every: Sequence[Detection], fitting: Sequence[int]) -> str:
        least = least_of(self.reading)
        many = f"{len(every)} detection{'' if len(every) == 1 else 's'} above {least:g}"
        listed = ", ".join(f"box:{n} {d.name} {d.probability:.2f}" for n, d in enumerate(every[:5]))
        here = f", {len(fitting)} of them such" if every and len(fitting) < len(every) else ""
        return f"target '{self.text}': the image has {many}{here}{': ' if every else ''}{listed}."


def box(
    target: object,
    classes: Callable[[str], int],
    labels: tuple[str, ...] | None,
    reading: Callable[[], Reading],
) -> Box | None:
    """Return the detection that a text names, ``None`` where it names something else.

    Args:
        target: what the user wrote.
        classes: returns a class's index by its index or label, or raises a :class:`TargetError`.
        labels: names of classes.
        reading: returns how the detector's numbers are read.

    Raises:
        TargetError: it is one, but a part of it is wrong.
    """
    found = _FORM.fullmatch(target.strip()) if isinstance(target, str) else None
    if found is None:
        return None
    text, what = str(target).strip(), found["what"]
    point = (int(found["x"]), int(found["y"])) if found["x"] else None
    if not what and point is None:
        raise TargetError(f"target '{text}': write box:0, box:LABEL, box:LABEL/1 or box:@X,Y.")
    if not what or re.fullmatch(r"\d+", what):
        return Box(text, reading(), labels, number=int(what or 0), point=point)
    name, slash, place = what.rpartition("/")
    if slash and not re.fullmatch(r"\d+", place):
        name, slash = what, ""
    index = classes(name if slash else what)
    return Box(text, reading(), labels, index, int(place) if slash else 0, point)


def weights_of(values: Array, found: Detection, reading: Reading) -> tuple[Array, float]:
    """Return the derivative of a detection's number by the detector's numbers, and it."""
    weights, row = np.zeros(values.shape), values[found.anchor]
    logits = kind_of(values, reading, None) != ""
    place = 4 if reading.final else 4 + reading.objectness + found.index
    if reading.objectness:
        number: Any = 0.0
        for at in (4, place):
            p = sigmoid(row[at]) if logits else row[at]
            weights[found.anchor, at] = 1 - p if logits else 1 / max(p, 1e-12)
            number += -np.logaddexp(0, -row[at]) if logits else np.log(max(p, 1e-12))
        return weights, float(number)
    weights[found.anchor, place] = 1
    return weights, float(row[place])
