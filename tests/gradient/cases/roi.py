"""Cases for pooling regions of interest, against sums over their samples one by one."""

from __future__ import annotations

from itertools import product

import numpy as np

from .values import case, distinct, i64, rng, weight


def bins(first, last, count, ratio, half):
    """The places of each bin's samples along one axis."""
    size = last - first if half else max(last - first, 1)
    many = ratio if ratio > 0 else int(np.ceil(size / count))
    step = size / count
    return [[first + (i + (s + 0.5) / many) * step for s in range(many)] for i in range(count)]


def pair(place, pixels):
    """The two pixels around a place and their weights."""
    if not -1 <= place <= pixels:
        return [(0, 0.0), (0, 0.0)]
    place = min(max(place, 0), pixels - 1)
    low = int(place)
    return [(low, 1 - (place - low)), (min(low + 1, pixels - 1), place - low)]


def readings(
    x,
    rois,
    images,
    output_height=1,
    output_width=1,
    sampling_ratio=0,
    spatial_scale=1.0,
    coordinate_transformation_mode="half_pixel",
):
    """For each region and bin: how many samples, and {(row, column, weight): pixels times weight}."""
    half = coordinate_transformation_mode == "half_pixel"
    for r, roi in enumerate(rois):
        left, top, right, bottom = roi * spatial_scale - (0.5 if half else 0)
        down = bins(top, bottom, output_height, sampling_ratio, half)
        across = bins(left, right, output_width, sampling_ratio, half)
        for i, j in np.ndindex(output_height, output_width):
            found = [
                ((p, q, v * w), v * w * x[images[r], :, p, q])
                for a, b in product(down[i], across[j])
                for (p, v), (q, w) in product(pair(a, x.shape[2]), pair(b, x.shape[3]))
            ]
            yield (r, slice(None), i, j), len(down[i]) * len(across[j]), found


def roi_align(x, rois, images, mode="avg", output_height=1, output_width=1, **options):
    y = np.zeros((len(rois), x.shape[1], output_height, output_width))
    for index, samples, found in readings(x, rois, images, output_height, output_width, **options):
        values = [value for _, value in found]
        if values and mode == "avg":
            y[index] = np.sum(values, axis=0) / max(samples, 1)
        elif values:
            y[index] = np.max(values, axis=0)
    return y


def clear_winners(rois, images, *shape, **options):
    """Pixels of which the largest in each bin is so by a margin."""
    while True:
        x = rng.normal(scale=3, size=shape)
        for _, _, found in readings(x, rois, images, **options):
            values = np.sort([*dict(found).values()], axis=0)
            if len(values) > 1 and np.any(values[-1] - values[-2] < 0.1 * (values[-1] != 0)):
                break
        else:
            return x


def away_from_pixels(scale, half):
    """Regions of several kinds, no sample of which is close to a pixel, where the slope jumps."""
    kinds = [[0, 0, 4, 5], [-2, -2, 3, 2], [3, 3, 9, 8], [2, 2, 2, 2], [5, 5, 3, 4]]
    while True:
        rois = kinds + rng.uniform(0.1, 0.9, (5, 4))
        pixels = rois * scale - (0.5 if half else 0)
        near = 0.02
        for (first, last), count, ratio in product(
            [*pixels[:, ::2], *pixels[:, 1::2]], (2, 3), (0, 2)
        ):
            sizes = (last - first) / count
            places = np.array([sizes, *np.ravel(bins(first, last, count, ratio, half))])
            if np.abs(places - np.round(places)).min() < near:
                break
        else:
            return rois


IMAGES = i64(0, 1, 1, 0, 1)
for system, ratio in product(("half_pixel", "output_half_pixel"), (0, 2)):
    rois = away_from_pixels(0.8, system == "half_pixel")
    S = {"coordinate_transformation_mode": system, "sampling_ratio": ratio}
    S |= {"output_height": 2, "output_width": 3, "spatial_scale": 0.8}
    A = {"opset": 16, "obvious": roi_align, **S}
    case("RoiAlign", weight(2, 3, 6, 7), rois, IMAGES, wrt=(0, 1), **A)
    case("RoiAlign", weight(2, 3, 6, 7), rois.astype("f"), IMAGES, fed=(1, 2), **A)
    x = clear_winners(rois, IMAGES, 2, 1, 6, 7, **S)
    case("RoiAlign", x, rois, IMAGES, mode="max", **A)
    case("RoiAlign", x, rois.astype("f"), IMAGES, mode="max", fed=(1, 2), **{**A, "opset": 21})
case(
    "RoiAlign",
    weight(1, 2, 5, 4),
    away_from_pixels(1, True),
    i64(*[0] * 5),
    opset=16,
    obvious=roi_align,
)


def max_roi_pool(x, rois, pooled_shape, spatial_scale=1.0):
    def half_away(value):
        return np.sign(value) * np.floor(np.abs(value) + 0.5)

    y = np.zeros((len(rois), x.shape[1], *pooled_shape))
    for r, (image, *bounds) in enumerate(rois):
        left, top, right, bottom = half_away(np.array(bounds) * spatial_scale)
        sizes = [max(bottom - top + 1, 1), max(right - left + 1, 1)]
        for index in np.ndindex(*pooled_shape):
            part = x[int(image)]
            for axis, (i, first) in enumerate(zip(index, (top, left), strict=True)):
                step = sizes[axis] / pooled_shape[axis]
                low, high = first + np.floor(i * step), first + np.ceil((i + 1) * step)
                inside = [p for p in range(x.shape[axis + 2]) if low <= p < high]
                part = np.take(part, inside, axis=axis + 1)
            elements = part.reshape(x.shape[1], -1)
            y[(r, slice(None), *index)] = elements.max(axis=1) if elements.size else 0
    return y


BOXES = np.array(
    [
        [0, 0.3, 0.4, 4.2, 5.1],
        [1, -2, -1.4, 3, 2],
        [1, 3, 3, 9, 8],
        [0, 2.6, 2, 2.2, 2.4],
        [1, 5, 5, 3, 4],
        [1, 20, 20, 30, 30],
    ]
)
M = {"obvious": max_roi_pool, "opset": 16}
case(
    "MaxRoiPool",
    np.abs(distinct(2, 3, 6, 7)) + rng.uniform(0, 1e-3, (2, 3, 6, 7)),
    BOXES,
    pooled_shape=[2, 3],
    **M,
)
case("MaxRoiPool", distinct(2, 2, 6, 7), BOXES, pooled_shape=[3, 1], spatial_scale=0.7, **M)
case("MaxRoiPool", distinct(2, 2, 6, 7), BOXES.astype("f"), pooled_shape=[2, 2], fed=(1,), **M)
