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

    @staticmethod
    def whole(length: int, elements: int) -> Axis:
        """Return the axis of a map that covers the photograph from edge to edge."""
        return Axis(length, elements / max(length, 1), 0.0, 0, length)


@dataclass(frozen=True)
class View:
    """Rows and columns of a map on a photograph; outside the visible part the map is 0."""

    rows: Axis
    columns: Axis

    @staticmethod
    def whole(size: tuple[int, int], elements: tuple[int, int]) -> View:
        """Return the view of a map that covers the photograph from edge to edge.

        Args:
            size: height and width of the photograph, or of another picture, e.g. the input tensor.
            elements: height and width of the map.
        """
        return View(Axis.whole(size[0], elements[0]), Axis.whole(size[1], elements[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""
        return self.rows.length, self.columns.length
