"""What lengths tell of a layer's layout; plain numbers, nothing here needs ``onnx``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onnxcam.errors import LayerError, quoted

MOST_OTHERS = 16  # tokens that are no patches
_USUAL = (1, 0, 2, 5, 4, 3)  # a class token; none; distillation too; four registers
Grid = tuple[int, ...]  # rows and columns; one length for signals


def seems_last(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether lengths alone tell that ``[N, H, W, K]`` is what a layer is, not ``[N, K, H, W]``.

    Args:
        shape: four lengths, none of them 0.
        size: height and width of the image.
    """
    first, second, third = shape[1:]
    height, width = size

    def alike(a: int, b: int) -> bool:
        """Whether one stride leads from the image to maps of a by b positions."""
        return abs(height / a - width / b) <= 0.15 * max(height / a, width / b)

    return alike(first, second) and not alike(second, third)


@dataclass(frozen=True)
class Check:
    """How a layer is read that only the lengths of a run can confirm.

    Attributes:
        output: the output that gives the layer's lengths.
        layer: the layer's name in the model.
        grid: how tokens are read; ``None`` where four axes are read as ``[N, K, H, W]``.
    """

    output: str
    layer: str
    grid: Grid | None

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Check:
        """Rebuild from ``dataclasses.asdict``'s data."""
        grid = data["grid"]
        return Check(data["output"], data["layer"], None if grid is None else tuple(grid))

    def verify(self, shape: Sequence[int], size: tuple[int, ...]) -> None:
        """Refuse lengths that do not go with how the layer is read.

        Args:
            shape: the layer's lengths in a run.
            size: the input's spatial lengths, of an image height and width.

        Raises:
            LayerError: they do not.
        """
        if self.grid is None:
            flat = len(shape) == 4 and all(shape) and len(size) == 2
            if flat and seems_last(shape, (size[0], size[1])):
                raise LayerError(
                    f"layer '{self.layer}' has shape {list(shape)} for an image of "
                    f"{size[0]}x{size[1]}, where channels seem to come last, and nothing else in "
                    f"the model tells. --layer {quoted(f'{self.layer}:last')} reads it so; "
                    f"--layer {quoted(f'{self.layer}:first')} takes the second axis for channels."
                )
        elif not fits(self.grid, shape[1]):
            raise LayerError(ill_fitting(self.layer, shape, self.grid, size))


def ill_fitting(
    layer: str, shape: Sequence[int | str | None], grid: Grid, size: tuple[int, ...] | None
) -> str:
    """Return why a layer of tokens is not read by a grid, and the way out."""
    written = "x".join(map(str, grid))
    return (
        f"layer '{layer}' of shape {list(shape)}: its {shape[1]} tokens are no grid of "
        f"{written} patches and at most {MOST_OTHERS} others. {grid_option(shape[1], size)}"
    )


def grid_option(length: int | str | None, size: tuple[int, ...] | None) -> str:
    """Return the option that says the grid of tokens, with one that fits if that can be told."""
    if not isinstance(length, int) or length < 1:
        return "--grid ROWSxCOLUMNS says it."
    rows, columns = likely_grid(length, size)
    return f"--grid {rows}x{columns} fits {length} tokens; take that of your model."


def fits(grid: Grid, length: int) -> bool:
    """Whether tokens hold a grid of patches, and few others."""
    return 0 <= length - math.prod(grid) <= MOST_OTHERS


def likely_grid(length: int, size: tuple[int, ...] | None) -> Grid:
    """Return the grid of patches that tokens most likely hold; it fits.

    Args:
        length: how many tokens there are, at least 1.
        size: height and width of the image, ``None`` where they are not known.
    """
    height, width = size if size is not None and len(size) == 2 else (1, 1)
    others = [o for o in (*_USUAL, *range(max(_USUAL) + 1, MOST_OTHERS + 1)) if o < length]

    def off(grid: Grid) -> float:
        """Return how far one stride is from leading from the image to the grid."""
        a, b = height / grid[0], width / grid[1]
        return abs(a - b) / max(a, b)

    best = [min(_factors(length - o), key=off) for o in others]
    for allowed in (0.01, 0.15):
        for grid in best:
            if off(grid) <= allowed:
                return grid
    return min(best, key=off)


def _factors(count: int) -> Iterable[Grid]:
    return ((n, count // n) for n in range(1, count + 1) if count % n == 0)
