"""A batch of images and their targets as a run takes them, and what is said of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from onnxcam.inputs.images import Item
from onnxcam.surgeon.plan import ELEMENTS, TARGETS, WEIGHTS
from onnxcam.surgeon.words import WEIGHTED
from onnxcam.targets.classes import ClassTarget
from onnxcam.targets.elements import ElementTarget
from onnxcam.targets.weighted import Stacked, WeightedTarget

if TYPE_CHECKING:
    from onnxcam.targets.detections import Detected

Wanted = ClassTarget | ElementTarget | WeightedTarget


def kind_of(target: Wanted) -> str | None:
    """Return what ``Request.element`` is for a target, ``None`` for a class."""
    if isinstance(target, ClassTarget):
        return None
    weighted = not isinstance(target, ElementTarget)
    return f"{WEIGHTED}{target.tensor}" if weighted else target.tensor


def rows_of(feeds: Mapping[str, Any]) -> int:
    """Return the number of targets in a run, as its inputs say it: 1 if nothing does."""
    return next((len(feeds[k]) for k in (WEIGHTS, ELEMENTS, TARGETS) if k in feeds), 1)


class Batch(NamedTuple):
    """What one run needs.

    ``size`` counts the images with those that only fill up; ``rows`` are the rows of the run's
    targets that each image wants; ``sums`` tells of weighted targets.
    """

    tensor: NDArray[Any]
    feeds: dict[str, Any]
    size: int
    items: Sequence[Item]
    targets: Sequence[Sequence[Wanted]]
    rows: list[list[int]]
    sums: Stacked | None = None


class Said(NamedTuple):
    """What is explained, see :class:`onnxcam.explanation.Explanation`."""

    target: int | None = None
    element: str | None = None
    label: str | None = None
    score: float = 0.0
    rank: int | None = None
    detected: Detected | None = None
    probability: float | None = None
