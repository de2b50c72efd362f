"""The box around a heatmap's largest segment."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.imaging.segments import SHARE, largest_segment


def flooded(heat: np.ndarray) -> tuple[int, int, int, int]:
    """The same, pixel by pixel."""
    hot = heat >= SHARE * heat.max()
    seen, best = np.zeros_like(hot), []
    for start in zip(*np.nonzero(hot), strict=True):
        if seen[start]:
            continue
        queue, mine = [start], []
        seen[start] = True
        while queue:
            y, x = queue.pop()
            mine.append((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < heat.shape[0] and 0 <= near[1] < heat.shape[1]
                if inside and hot[near] and not seen[near]:
                    seen[near] = True
                    queue.append(near)
        best = mine if len(mine) > len(best) else best
    rows, columns = zip(*best, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_of_random_segments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat = rng.random((17, 23)) * (rng.random((17, 23)) < 0.55)
    assert largest_segment(heat) == flooded(heat)


def test_what_is_hot() -> None:
    heat = np.zeros((10, 12), np.float32)
    heat[1:3, 2:9] = 1
    heat[5:9, 4:7] = 0.5  # 12 pixels, fewer than 14
    heat[5:9, 8:12] = 0.14  # below 15 %
    assert largest_segment(heat) == (2, 1, 9, 3)
    assert largest_segment(np.zeros((4, 4))) is None
    assert largest_segment(np.ones((3, 5))) == (0, 0, 5, 3)
