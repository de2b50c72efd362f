"""Run both sides on images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Feeding, look_like_noise
from onnxcam.compare.measures import ALIKE, best, compare_maps, compare_scores
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
    first: NDArray[Any] | None
    second: NDArray[Any] | None
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
                tensors = [one.first for one in good if one.first is not None]
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
        targets = [best(np.nan_to_num(seen.scores))[0] for seen in first]
        second = self.candidate.look(keys, [_there(one.second) for one in batch], targets)
        image = self.reference.about.image
        return [
            row_of(
                one,
                (self.reference.about, a),
                (self.candidate.about, b),
                image.channels_first(_there(one.first)).shape[2:],
            )
            for one, a, b in zip(batch, first, second, strict=True)
        ]


def row_of(
    one: Ready, reference: tuple[About, Seen], candidate: tuple[About, Seen], extent: Sequence[int]
) -> Row:
    """Return what two sides say of an image, and how alike it is.

    Raises:
        CompareError: they do not have the same number of classes, or of spatial axes.
    """
    (first, a), (second, b) = reference, candidate
    if a.scores.shape != b.scores.shape:
        raise CompareError(
            f"the reference's '{first.score}' has {a.scores.size} classes, the candidate's "
            f"'{second.score}' {b.scores.size}: their answers cannot be compared. --score and "
            "--candidate-score name other tensors."
        )
    if a.heat.ndim != b.heat.ndim:
        raise CompareError(
            f"the maps of '{first.layer}' and '{second.layer}' have {a.heat.ndim} and "
            f"{b.heat.ndim} spatial axes. --layer and --candidate-layer name others."
        )
    name = shown(one.path)
    for seen, side in ((a, "reference"), (b, "candidate")):
        if not _finite(seen):
            return Row(name, one.key, FAILED, error=f"the {side} computes NaN or infinity on it")
    target = best(a.scores)[0]
    status, likeness = compare_maps(a.heat, b.heat, extent)
    return Row(
        name,
        one.key,
        status,
        {**compare_scores(a.scores, b.scores), **likeness},
        _answer(first, a, target),
        _answer(second, b, target, first),
    )


def _answer(about: About, seen: Seen, target: int, named: About | None = None) -> Answer:
    own = best(seen.scores)[0]
    peak = float(seen.heat.max(initial=0.0))
    heat = np.rint(seen.heat * (255 / peak)) if peak > 0 else np.zeros_like(seen.heat)
    return Answer(
        target=own,
        label=about.label(own) or (named.label(own) if named else None),
        score=float(seen.scores[target]),
        probability=probability(about.shares, seen.scores, target),
        note=seen.note,
        heat=heat.astype(np.uint8),
    )


def _finite(seen: Seen) -> bool:
    return bool(np.isfinite(seen.scores).all() and np.isfinite(seen.heat).all())


def _there(tensor: NDArray[Any] | None) -> NDArray[Any]:
    assert tensor is not None
    return tensor
