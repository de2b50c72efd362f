"""Boxes on a photograph: of detections, of maps, and those that somebody annotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from PIL import Image

Edges = tuple[float, float, float, float]
_OF_MAP, _ANNOTATED = "#ffe14d", "#5dff8f"  # of detections white
NAMES = ("left", "top", "right", "bottom")


class _Detection(Protocol):
    """A detection, see :class:`onnxcam.targets.detections.Detection`."""

    @property
    def box(self) -> Edges | None: ...
    @property
    def name(self) -> str: ...
    @property
    def probability(self) -> float: ...


class Annotation(NamedTuple):
    """A box that somebody drew around an object.

    Attributes:
        label: what it holds.
        box: left, top, right, bottom in pixels of the photograph.
    """

    label: str
    box: Edges


def annotation_records(
    annotations: Sequence[Annotation],
    overlaps: Sequence[float] | None,
    peak: Sequence[int] | None,
) -> list[dict[str, Any]]:
    """Return annotations as JSON-ready data.

    Args:
        annotations: the boxes.
        overlaps: of each with the map's box, intersection over union; ``None`` where the map has
            none.
        peak: column and row of the map's largest value.
    """
    found = []
    for n, (label, box) in enumerate(annotations):
        left, top, right, bottom = box
        inside = peak and left <= peak[0] + 0.5 <= right and top <= peak[1] + 0.5 <= bottom
        found.append(
            {
                "label": label,
                "box": dict(zip(NAMES, (round(float(v), 2) for v in box), strict=True)),
                "iou": None if overlaps is None else round(float(overlaps[n]), 4),
                "peak_inside": None if peak is None else bool(inside),
            }
        )
    return found


def with_boxes(
    picture: Image.Image,
    annotations: Sequence[Annotation],
    of_map: Edges | None,
    detected: _Detection | None,
) -> Image.Image:
    """Return a picture with annotations in green, a map's box in yellow, a detection in white."""
    for label, box in annotations:
        picture = framed(picture, box, label, _ANNOTATED)
    if of_map is not None:
        picture = framed(picture, of_map, "map", _OF_MAP)
    if detected is None or detected.box is None:
        return picture
    return framed(picture, detected.box, f"{detected.name} {detected.probability:.2f}")


def framed(picture: Image.Image, box: Edges, text: str, colour: str = "white") -> Image.Image:
    """Return a picture with a frame, left, top, right, bottom, and a line of text at its top."""
    from PIL import ImageDraw, ImageFont

    draw, width = ImageDraw.Draw(picture), max(2, min(picture.size) // 200)
    left, top, right, bottom = box
    right, bottom = max(right, left), max(bottom, top)
    draw.rectangle((left, top, right, bottom), outline="black", width=width + 2)
    draw.rectangle(
        (left + 1, top + 1, max(right - 1, left + 1), max(bottom - 1, top + 1)),
        outline=colour,
        width=width,
    )
    size = min(max(picture.width // 40, 10), 40)
    font = ImageFont.load_default(size)
    across, down = font.getlength(text) + 6, size * 4 // 3
    if across <= picture.width:
        x = min(left, picture.width - across)
        y = top - down if top >= down else min(top, picture.height - down)
        draw.rectangle((x, y, x + across, y + down), fill="black")
        draw.text((x + 3, y), text, colour, font)
    return picture
