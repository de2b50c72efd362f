"""What targets mean that a user names, for one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcam.batch import Wanted
from onnxcam.errors import ScoreError, TargetError
from onnxcam.surgeon.plan import DetectorFacts, Plan
from onnxcam.targets.classes import Targets, resolve
from onnxcam.targets.elements import element
from onnxcam.targets.weighted import weighted

_SUREST = 3  # detections that are explained where none is asked for


@dataclass(frozen=True)
class Meaning:
    """What targets mean.

    Attributes:
        plan: what was chosen in the model.
        labels: names of the classes.
        path: the model's file, for messages.
        reading: returns how a detector's numbers are read, or raises a :class:`ScoreError`.
    """

    plan: Plan
    labels: tuple[str, ...] | None
    path: Path
    reading: Callable[[], DetectorFacts]

    def of(self, targets: Targets) -> list[Wanted]:
        """Return what targets mean: classes, ranks, elements, detections, ...

        Raises:
            TargetError: an unknown or ambiguous label, or an index or rank out of range.
            ScoreError: the model has no class scores.
        """
        if targets is None and self.plan.detector is not None:
            return list(self._surest())
        if isinstance(targets, Sequence) and not isinstance(targets, str):
            if None in targets:
                raise TargetError("target None is neither an index nor a label.")
            listed: Sequence[Any] = targets
        else:
            listed = [targets]
        found: list[Wanted] = []
        for target in listed:
            one = self._one(target)
            if one is None:
                self.check_classes()
                found += resolve(target, self.plan.classes, self.labels)
            else:
                found.append(one)
        if not found:
            raise TargetError("no target given: the list is empty.")
        return found

    def check_classes(self) -> None:
        """Refuse classes where the model has none.

        Raises:
            ScoreError: it has none.
        """
        if self.plan.refusal:
            raise ScoreError(f"{self.path.name}: {self.plan.refusal}")

    def _one(self, target: object) -> Wanted | None:
        """Return what a target means that is no class of an image."""
        label = isinstance(target, str) and target.strip() in (self.labels or ())
        if label:
            return element(target)
        kind = target.strip().lower() if isinstance(target, str) else ""
        # Few calls need these, and a short one should start quickly.
        found: Wanted | None = None
        if kind.startswith(("step:", "text", "tokens:")):
            from onnxcam.targets.sequences import in_steps

            found = in_steps(target, self.labels)
        elif kind.startswith("box:"):
            from onnxcam.targets.boxes import box

            found = box(target, self._class_index, self.labels, self.reading)
        found = found or element(target)
        if found is None and kind.startswith("region:"):
            from onnxcam.inputs.masks import read_mask
            from onnxcam.targets.pixels import in_pixels

            found = in_pixels(target, self._pixel_class, self.labels, read_mask)
        return found or weighted(target, self._class_index)

    def _surest(self) -> list[Wanted]:
        """Return the surest detections, as many as there are, up to three."""
        from onnxcam.targets.boxes import Box

        reading = self.reading()
        return [
            Box(f"box:{n}", reading, self.labels, number=n, optional=True) for n in range(_SUREST)
        ]

    def _class_index(self, text: str) -> int:
        return self._one_class(text, self.plan.classes)

    def _pixel_class(self, text: str) -> int:
        return self._one_class(text, None)  # of pixels there may be other classes than of images

    def _one_class(self, text: str, classes: int | None) -> int:
        """Return the index of a class that is part of a target."""
        found = resolve(text, classes, self.labels)
        if len(found) != 1 or found[0].index is None:
            raise TargetError(f"target '{text}': here it must be one class, by index or label.")
        return found[0].index
