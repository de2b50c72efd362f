"""The box of a heatmap: around its largest connected segment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.15  # of the largest value, Selvaraju et al. 2017, section 4.1


def largest_segment(heat: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Return the box around the largest connected segment of a heatmap's hot part.

    Selvaraju et al. 2017, section 4.1: what is at least 15 % of the maximum is hot, and of its
    connected segments (by edges) the largest counts.

    Args:
        heat: ``[H, W]``, at least 0.

    Returns:
        left, top, right, bottom in pixels, right and bottom one past the last; ``None`` where
        nothing is above 0.
    """
    peak = float(heat.max(initial=0.0))
    if peak <= 0:
        return None
    rows, starts, ends = _runs(heat >= SHARE * peak)
    parents = list(range(len(rows)))

    def root(n: int) -> int:
        while parents[n] != n:
            parents[n] = parents[parents[n]]
            n = parents[n]
        return n

    first = np.searchsorted(rows, np.arange(heat.shape[0] + 1))
    for row in range(1, heat.shape[0]):
        above, below = int(first[row - 1]), int(first[row])
        while above < first[row] and below < first[row + 1]:
            if starts[above] < ends[below] and starts[below] < ends[above]:
                parents[root(below)] = root(above)
            if ends[above] < ends[below]:
                above += 1
            else:
                below += 1
    roots = np.array([root(n) for n in range(len(rows))])
    sizes = np.bincount(roots, weights=ends - starts)
    mine = roots == sizes.argmax()
    return (
        int(starts[mine].min()),
        int(rows[mine].min()),
        int(ends[mine].max()),
        int(rows[mine].max()) + 1,
    )


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows, starts and ends of what is set without a gap, row by row."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    _, ends = np.nonzero(change == -1)
    return rows, starts, ends
