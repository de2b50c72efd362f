"""What a comparison found: rows, totals, and the file that holds them."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam._version import __version__
from onnxcam.compare.facts import About
from onnxcam.compare.measures import ALIKE, BOTH, LOST, ONE, UNSEEN
from onnxcam.errors import ResultsError
from onnxcam.files import write_atomically

FORMAT = 1
MEASURES: dict[str, tuple[str, bool]] = {  # what it is, and whether more is better
    "agreement": ("same predicted class", True),
    "top5": ("share of the five best classes that is the same", True),
    "score_drift": ("score drift, in standard deviations of the scores", False),
    "found": ("share of the reference's boxes that are found again", True),
    "extra": ("share of the candidate's boxes that the reference has not", False),
    "box_iou": ("overlap (IoU) of the surest box in both, 0 where it is lost", True),
    "confidence_drift": ("drift of the surest box's score, 0..1", False),
    "correlation": ("Pearson correlation of the maps", True),
    "rank_correlation": ("Spearman correlation of the maps", True),
    "rmse": ("root mean square difference of the maps, 0..1", False),
    "iou": ("overlap (IoU) of where they reach 15 % of their peaks", True),
    "peak_shift": ("distance of the peaks, as a fraction of the input's diagonal", False),
    "mass_moved": ("share of the map's mass that moved", False),
}
STATUSES = (ALIKE, ONE, BOTH, UNSEEN, LOST)


def meaning(measure: str, boxes: bool) -> str:
    """Return what a measure is, of detectors or of models of image classes."""
    if boxes and measure == "agreement":
        return "the surest box is found again, where any is seen"
    return MEASURES[measure][0]


@dataclass(frozen=True)
class Answer:
    """What one side says of an image.

    Attributes:
        target: its predicted class; of a detector the class of the reference's surest box where it
            has that box, too, else ``None``.
        label: the class's name.
        score: of the reference's predicted class or box.
        probability: of that class or box, where the model has probabilities.
        note: why its map says nothing, ``""`` where it says something.
        heat: its map over its maximum, ``[*S]`` uint8.
        box: left, top, right, bottom in the photograph's pixels, of a detector that has the box.
    """

    target: int | None
    label: str | None
    score: float
    probability: float | None
    note: str
    heat: NDArray[np.uint8] = field(repr=False)
    box: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The predicted class's name, or its number."""
        return self.label or ("no such box" if self.target is None else f"class {self.target}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "heat"}
        packed = base64.b64encode(self.heat.tobytes()).decode()
        return {**said, "map": {"shape": list(self.heat.shape), "uint8": packed}}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Answer:
        """Rebuild from :meth:`to_dict`'s data."""
        packed = data["map"]
        flat = np.frombuffer(base64.b64decode(packed["uint8"]), np.uint8)
        said = {key: value for key, value in data.items() if key != "map"}
        said["box"] = None if said.get("box") is None else tuple(map(float, said["box"]))
        return Answer(**said, heat=flat.reshape(packed["shape"]))


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        image: its file.
        sha256: of the file.
        status: whether its maps could be compared, see :mod:`onnxcam.compare.measures`; or
            :data:`FAILED`.
        measures: by name; none where it failed, and of the maps none where both say nothing.
        reference: what the reference says.
        candidate: what the candidate says.
        error: why it failed.
        boxes: how many boxes of two detectors are ``found`` again, ``missed`` and ``extra``.
    """

    image: str
    sha256: str
    status: str
    measures: dict[str, float] = field(default_factory=dict)
    reference: Answer | None = None
    candidate: Answer | None = None
    error: str | None = None
    boxes: dict[str, int] | None = None

    @property
    def badness(self) -> tuple[float, ...]:
        """Sorts rows, the worst last: what failed, then the least alike maps, then answers."""
        get = self.measures.get
        return (
            float(self.status == FAILED),
            -get("correlation", 2.0 if self.status in (BOTH, UNSEEN) else -2.0),
            get("peak_shift", 0.0),
            -get("agreement", 1.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        sides = {
            key: None if side is None else side.to_dict()
            for key, side in (("reference", self.reference), ("candidate", self.candidate))
        }
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**own, **sides}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Row:
        """Rebuild from :meth:`to_dict`'s data.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        sides = {
            key: None if data[key] is None else Answer.from_dict(data[key])
            for key in ("reference", "candidate")
        }
        measures = {str(k): float(v) for k, v in data["measures"].items()}
        if not all(map(math.isfinite, measures.values())) or not measures.keys() <= MEASURES.keys():
            raise ValueError("a measure is unknown or not finite")
        if data["status"] not in (*STATUSES, FAILED):
            raise ValueError(f"status '{data['status']}'")
        return Row(**{**data, "measures": measures, **sides})


FAILED = "failed"
_OF_BOXES = (UNSEEN, LOST)


@dataclass(frozen=True)
class Results:
    """A comparison.

    Attributes:
        reference: one side.
        candidate: the other.
        matched: how layer and score were matched, and how the candidate is fed.
        rows: one an image.
        stopped: whether ``--fail-fast`` ended it early.
    """

    reference: About
    candidate: About
    matched: dict[str, str]
    rows: Sequence[Row]
    stopped: bool = False

    def worst_first(self) -> list[Row]:
        """Return the rows, the worst first."""
        return sorted(self.rows, key=lambda row: row.badness, reverse=True)

    def counts(self) -> dict[str, int]:
        """Return how many images there are of each status."""
        listed = (*(s for s in STATUSES if self.reference.boxes or s not in _OF_BOXES), FAILED)
        return {s: sum(r.status == s for r in self.rows) for s in listed}

    def boxes(self) -> dict[str, int]:
        """Return how many boxes of detectors are found again, missed and extra, of all images."""
        found = [row.boxes for row in self.rows if row.boxes is not None]
        return {key: sum(one[key] for one in found) for key in (found[0] if found else ())}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "onnxcam": __version__,
            "kind": "comparison",
            "format": FORMAT,
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "matched": self.matched,
            "stopped": self.stopped,
            "images": [row.to_dict() for row in self.rows],
        }

    def save(self, path: Path) -> Path:
        """Write the file of results.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"
        return write_atomically(path, lambda file: file.write(text.encode()))


def read_results(path: Path) -> Results:
    """Read a file of results.

    Raises:
        ResultsError: it cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ResultsError(
            f"{path}: damaged, not JSON ({error}). Compare the models again."
        ) from None
    if not isinstance(data, dict) or data.get("kind") != "comparison":
        raise ResultsError(f"{path}: no results of 'onnxcam compare'.")
    if data.get("format") != FORMAT:
        raise ResultsError(
            f"{path}: written by another version of onnxcam ({data.get('onnxcam')}). Compare the "
            "models again."
        )
    try:
        return Results(
            reference=About.from_dict(data["reference"]),
            candidate=About.from_dict(data["candidate"]),
            matched=dict(data["matched"]),
            rows=[Row.from_dict(row) for row in data["images"]],
            stopped=bool(data["stopped"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path}: damaged ({error!r}). Compare the models again.") from error
