"""Cases for sampling at computed places, kept away from pixels, where the slope jumps."""

from __future__ import annotations

from itertools import product

import numpy as np

from .values import case, i64, rng, weight


def grid(batch: int, counts: tuple[int, ...], out: tuple[int, ...], corners: int) -> np.ndarray:
    """Places inside and outside the image, at least 0.1 pixels from where a tap changes."""
    found = []
    for count in reversed(counts):
        pixel = rng.integers(-3, count + 2, (batch, *out)) + rng.choice(
            [0.15, 0.35, 0.65, 0.8], (batch, *out)
        )
        found.append(2 * pixel / (count - 1) - 1 if corners else (2 * pixel + 1) / count - 1)
    return np.stack(found, axis=-1)


def taps(place, mode):
    """(pixel, weight) of the taps around a place; Keys's cubic convolution with a = -3/4."""
    if mode == "nearest":
        return [(round(place), 1.0)]
    before = int(np.floor(place))
    t = place - before
    if mode in ("linear", "bilinear"):
        return [(before, 1 - t), (before + 1, t)]

    def kernel(d, a=-0.75):
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    return [(before + i, kernel(abs(t - i))) for i in (-1, 0, 1, 2)]


def pixel(index, count, edge, corners):
    """The pixel that lies at a place of the grid, ``None`` where there is none."""
    if edge == "border":
        return min(max(index, 0), count - 1)
    while edge == "reflection" and not 0 <= index < count:
        index = -index - (not corners) if index < 0 else 2 * count - 2 + (not corners) - index
    return index if 0 <= index < count else None


def grid_sample(x, grid, mode="linear", padding_mode="zeros", align_corners=0):
    counts, y = x.shape[2:], np.zeros([*x.shape[:2], *grid.shape[1:-1]])
    for b, *out in np.ndindex(*grid.shape[:-1]):
        axes = []
        for n, count in zip(grid[(b, *out)][::-1], counts, strict=True):
            place = (n + 1) / 2 * (count - 1) if align_corners else ((n + 1) * count - 1) / 2
            found = [
                (pixel(i, count, padding_mode, align_corners), w) for i, w in taps(place, mode)
            ]
            axes.append([(i, w) for i, w in found if i is not None])
        for read in product(*axes):
            share = np.prod([w for _, w in read])
            y[(b, slice(None), *out)] += share * x[(b, slice(None), *(i for i, _ in read))]
    return y


SLOW = {"obvious": grid_sample}
for edge, corners in product(("zeros", "border", "reflection"), (0, 1)):
    G = {"padding_mode": edge, "align_corners": corners, **SLOW}
    for old, new in (("bilinear", "linear"), ("bicubic", "cubic")):
        places = grid(2, (4, 5), (3, 2), corners)
        case("GridSample", weight(2, 3, 4, 5), places, mode=old, opset=16, wrt=(0, 1), **G)
        case("GridSample", weight(2, 3, 4, 5), places, mode=new, opset=22, wrt=(0, 1), **G)
    places = grid(1, (3, 4), (3, 5), corners)
    case("GridSample", weight(1, 2, 3, 4), places, mode="nearest", opset=16, **G)
    places = grid(1, (3, 4, 2), (2, 3, 2), corners)
    case("GridSample", weight(1, 2, 3, 4, 2), places, mode="nearest", opset=20, **G)
    case("GridSample", weight(1, 2, 3, 4, 2), places, mode="linear", opset=20, wrt=(0, 1), **G)
case(
    "GridSample",
    weight(2, 3, 4, 5),
    grid(2, (4, 5), (3, 2), 0).astype("f"),
    opset=16,
    fed=(1,),
    **SLOW,
)
case("GridSample", weight(2, 1, 1, 4), grid(2, (1, 4), (3, 2), 0), opset=20, **SLOW)

for corners in (0, 1):
    case(
        "AffineGrid", weight(2, 2, 3), i64(2, 3, 4, 5), align_corners=corners, opset=20, linear=True
    )
    case(
        "AffineGrid",
        weight(1, 3, 4),
        i64(1, 1, 3, 2, 4),
        align_corners=corners,
        opset=20,
        linear=True,
    )
    case(
        "AffineGrid",
        weight(2, 2, 3),
        i64(2, 3, 4, 5),
        align_corners=corners,
        fed=(1,),
        dynamic=(1, 2),
        opset=22,
        linear=True,
    )
