"""Where a map lies on the photograph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One axis of a :class:`View`.

    Pixel ``x`` of the photograph, ``first <= x < last``, reads the map at the element
    coordinate ``(x + 0.5) * scale + offset - 0.5`` (half-pixel centres), clamped to its ends.

    Attributes:
        length: the photograph's length in pixels.
        scale: map elements per pixel.
        offset: the photograph's edge, in map elements.
        first: first visible pixel.
        last: one past the last visible pixel.
    """

    length: int
    scale: float
    offset: float
    first: int
    last: int


@dataclass(frozen=True)
class View:
    """Rows and columns of a map on a photograph; outside the visible part the map is 0."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""
        return self.rows.length, self.columns.length
