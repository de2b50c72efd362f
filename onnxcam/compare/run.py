"""Run both sides on images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.boxes import Boxes, compare_boxes
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Fed, Feeding, look_like_noise
from onnxcam.compare.matching import other_classes
from onnxcam.compare.measures import (
    ALIKE,
    LOST,
    NOTHING_ALIKE,
    UNSEEN,
    best,
    compare_maps,
    compare_scores,
)
from onnxcam.compare.results import FAILED, Answer, Row
from onnxcam.compare.sides import Seen, Side, digest
from onnxcam.errors import CompareError, ImageError, InputArrayError
from onnxcam.files import shown
from onnxcam.runtime.batching import ahead
from onnxcam.targets.classes import probability

BATCH = 8
LOOKED_AT = 16  # images that are asked whether they are noise


class Ready(NamedTuple):
    """An image as both sides take it, or why it cannot be."""

    path: Path
    key: str
    first: Fed | None
    second: Fed | None
    error: str | None = None


@dataclass
class Run:
    """A comparison that is under way; iterate over it for rows, a list a batch.

    Attributes:
        reference: one side.
        candidate: the other; ``None`` to record the reference alone.
        feeding: prepares images for both.
        paths: the images.
        noise: how many of the first 16 look like noise.
    """

    reference: Side
    candidate: Side | None
    feeding: Feeding
    paths: Sequence[Path]
    noise: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[list[Row]]:
        """Yield rows; the next batch is decoded while the present one runs."""
        looked = 0
        chunks = [self.paths[i : i + BATCH] for i in range(0, len(self.paths), BATCH)]
        for batch in ahead(chunks, self._prepared):
            good = [one for one in batch if one.error is None]
            if looked < LOOKED_AT:
                tensors = [one.first.tensor for one in good if one.first is not None]
                self.noise += look_like_noise(tensors, self.reference.about.image)
                looked += len(batch)
            rows = iter(self._compared(good))
            yield [
                next(rows)
                if one.error is None
                else Row(shown(one.path), one.key, FAILED, error=one.error)
                for one in batch
            ]

    def _prepared(self, paths: Sequence[Path]) -> list[Ready]:
        found = []
        for path in paths:
            try:
                first, second = self.feeding.prepare(path)
                found.append(Ready(path, digest(path), first, second))
            except (ImageError, InputArrayError) as error:
                found.append(Ready(path, digest(path), None, None, shown(error)))
        return found

    def _compared(self, batch: Sequence[Ready]) -> list[Row]:
        if not batch:
            return []
        keys = [one.key for one in batch]
        first = self.reference.look(keys, [_there(one.first) for one in batch], None)
        if self.candidate is None:
            return [
                Row(shown(one.path), one.key, ALIKE if _finite(a) else FAILED)
                for one, a in zip(batch, first, strict=True)
            ]
        second = self.candidate.look(keys, [_there(one.second) for one in batch], first)
        image = self.reference.about.image
        return [
            row_of(
                one,
                (self.reference, a),
                (self.candidate, b),
                image.channels_first(_there(one.first).tensor).shape[2:],
            )
            for one, a, b in zip(batch, first, second, strict=True)
        ]


def row_of(
    one: Ready, reference: tuple[Side, Seen], candidate: tuple[Side, Seen], extent: Sequence[int]
) -> Row:
    """Return what two sides say of an image, and how alike it is.

    Raises:
        CompareError: they do not have the same number of classes, or of spatial axes.
    """
    (first, a), (second, b) = reference, candidate
    name = shown(one.path)
    for seen, side in ((a, "reference"), (b, "candidate")):
        if not _finite(seen):
            return Row(name, one.key, FAILED, error=f"the {side} computes NaN or infinity on it")
    if a.scores.shape != b.scores.shape:
        about, count = second.about, b.scores.size
        raise other_classes(first, a.scores.size, about.file, about.score, count)
    if a.heat.ndim != b.heat.ndim:
        raise CompareError(
            f"the maps of '{first.about.layer}' and '{second.about.layer}' have {a.heat.ndim} and "
            f"{b.heat.ndim} spatial axes. --layer and --candidate-layer name others."
        )
    counts = None
    if a.boxes is not None and b.boxes is not None:
        measures, counts = compare_boxes(a.boxes, b.boxes)
        nothing = a.boxes.one is None
        answers = _boxed(a, a.boxes, nothing), _boxed(b, b.boxes, nothing)
    else:
        measures, target = compare_scores(a.scores, b.scores), best(a.scores)[0]
        answers = _answer(first.about, a, target), _answer(second.about, b, target, first.about)
    status, likeness = _maps(a, b, extent)
    return Row(name, one.key, status, {**measures, **likeness}, *answers, boxes=counts)


def _maps(a: Seen, b: Seen, extent: Sequence[int]) -> tuple[str, dict[str, float]]:
    """Return how alike the maps are, where a detector sees anything that they explain."""
    if a.boxes is not None and not a.boxes.explained:
        return UNSEEN, {}
    if b.boxes is not None and not b.boxes.explained:
        return LOST, dict(NOTHING_ALIKE)
    return compare_maps(a.heat, b.heat, extent)


def _answer(about: About, seen: Seen, target: int, named: About | None = None) -> Answer:
    own = best(seen.scores)[0]
    return Answer(
        target=own,
        label=about.label(own) or (named.label(own) if named else None),
        score=float(seen.scores[target]),
        probability=probability(about.shares, seen.scores, target),
        note=seen.note,
        heat=_packed(seen.heat),
    )


def _boxed(seen: Seen, boxes: Boxes, nothing: bool) -> Answer:
    """Return the explained box; where the reference sees nothing, the side's surest."""
    one = next(iter(boxes.every), None) if nothing else boxes.one
    return Answer(
        target=None if one is None else one.index,
        label=one.label if one is not None else "nothing" if nothing else None,
        score=float(seen.scores[0]),
        probability=boxes.confidence if one is None else one.probability,
        note=seen.note if boxes.explained else "",
        heat=_packed(seen.heat),
        box=None if one is None else one.box,
    )


def _packed(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a map over its maximum, 0 to 255."""
    peak = float(heat.max(initial=0.0))
    scaled = np.rint(heat * (255 / peak)) if peak > 0 else np.zeros_like(heat)
    return scaled.astype(np.uint8)


def _finite(seen: Seen) -> bool:
    return bool(np.isfinite(seen.scores).all() and np.isfinite(seen.heat).all())


def _there(fed: Fed | None) -> Fed:
    assert fed is not None
    return fed
