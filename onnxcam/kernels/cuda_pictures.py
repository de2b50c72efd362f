"""Resizing, multiplying and painting maps: GPU code of :mod:`onnxcam.kernels.cuda`."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, float64, int32

from onnxcam.kernels.cuda_common import THREADS, compiled, read

BAND = 32  # rows of a picture that a block computes
LEVELS = 256
TABLE = 3 * LEVELS


@cuda.jit(device=True)
def _sample(pixel, scale, offset, length):
    """Return the map element below a pixel and the weight of the next one."""
    u = (pixel + 0.5) * scale + offset - 0.5
    u = min(max(u, 0.0), float64(length - 1))
    low = min(int(u), max(length - 2, 0))
    return low, float32(u - low)


@cuda.jit(device=True)
def _finite(number):
    return number if math.isfinite(number) else float32(0)


@cuda.jit(device=True)
def _across(raw, at, step, weight):
    """Interpolate within a row of the map."""
    first = _finite(read(raw, at))
    second = _finite(read(raw, at + step))
    return first * (float32(1) - weight) + second * weight


@cuda.jit(device=True)
def _steps(height, width):
    """Return the distances to the next column and row of a map, 0 where there is none."""
    return (1 if width > 1 else 0), (width if height > 1 else 0)


@cuda.jit(device=True)
def _column(wide):
    """Return this thread's column of a picture, its group of threads and the number of groups.

    A group computes a row; where pictures are narrow, a block has several groups.
    """
    across = min(wide, THREADS)
    group = cuda.threadIdx.x // across
    x = cuda.blockIdx.z * THREADS + cuda.threadIdx.x - group * across
    return x, group, THREADS // across


@cuda.jit(device=True)
def _stage_rows(lows, weights, top, bottom, scale, offset, length):
    """Compute, once for a block, which map rows each row of a picture lies between."""
    i = cuda.threadIdx.x
    while i < bottom - top:
        low, weight = _sample(top + i, scale, offset, length)
        lows[i] = low
        weights[i] = weight
        i += THREADS
    cuda.syncthreads()


@cuda.jit(device=True)
def _candidate(c, first, last, length, scale, offset):
    """Return the ``c``-th pixel of an axis where a resized map can be largest.

    Between two map elements the value is linear, so it is largest at the first or last pixel
    between them: at one of the three pixels around each element, or at an end of the visible
    part.
    """
    if last - first <= 3 * length + 2 or scale <= 0:
        return first + c
    if c == 3 * length:
        return first
    if c > 3 * length:
        return last - 1
    element = c // 3
    centre = (element + 0.5 - offset) / scale - 0.5
    centre = min(max(centre, float64(first)), float64(last - 1))
    return min(max(int(centre) + c - 3 * element - 1, first), last - 1)


@cuda.jit(device=True)
def _candidates(first, last, length, scale):
    few = 3 * length + 2
    return last - first if last - first <= few or scale <= 0 else few


@compiled
def peaks(raw, out, sizes, places):
    """Find the largest value of each resized map, at least 0; one map in a block."""
    height, width, _, _, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    best = cuda.shared.array(THREADS, float32)
    me = cuda.threadIdx.x
    down = _candidates(top, bottom, height, row_scale)
    along = _candidates(left, right, width, column_scale)
    base = cuda.blockIdx.x * height * width
    step, line = _steps(height, width)
    largest = float32(0)
    i = me
    while i < down * along:
        row = i // along
        y = _candidate(row, top, bottom, height, row_scale, row_offset)
        x = _candidate(i - row * along, left, right, width, column_scale, column_offset)
        y0, wy = _sample(y, row_scale, row_offset, height)
        x0, wx = _sample(x, column_scale, column_offset, width)
        at = base + y0 * width + x0
        over = _across(raw, at, step, wx)
        under = _across(raw, at + line, step, wx)
        largest = max(largest, over * (float32(1) - wy) + under * wy)
        i += THREADS
    best[me] = largest
    cuda.syncthreads()
    half = THREADS // 2  # a power of two
    while half > 0:
        if me < half:
            best[me] = max(best[me], best[me + half])
        cuda.syncthreads()
        half //= 2
    if me == 0:
        out[cuda.blockIdx.x] = best[0]


@compiled
def upsample(raw, peak, out, sizes, places, normalise):
    """Resize maps. Block ``(x, y, z)``: map ``x``, band ``y`` of rows, stretch ``z`` of columns.

    A thread keeps to its columns and interpolates across only when the pair of map rows changes,
    so a pixel costs two multiplications and a store.
    """
    height, width, tall, wide, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    x, group, groups = _column(wide)
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step, line = _steps(height, width)
    scale = float32(1)
    if normalise and peak[cuda.blockIdx.x] > 0:
        scale = peak[cuda.blockIdx.x]
    base = cuda.blockIdx.x * height * width + x0
    place = cuda.blockIdx.x * tall * wide + x
    seen = left <= x and x < right
    row = -1
    over = float32(0)
    under = float32(0)
    for y in range(start + group, end, groups):
        value = float32(0)
        if seen and top <= y and y < bottom:
            if lows[y - start] != row:
                row = lows[y - start]
                over = _across(raw, base + row * width, step, wx) / scale
                under = _across(raw, base + row * width + line, step, wx) / scale
            weight = weights[y - start]
            value = over * (float32(1) - weight) + under * weight
            if normalise:
                value = min(value, float32(1))
        out[place + y * wide] = value


@compiled
def fuse(guided, raw, out, channels, sizes, places):
    """Multiply guided gradients by the resized map, which is never stored."""
    height, width, tall, wide, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    x, group, groups = _column(wide)
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step, line = _steps(height, width)
    base = cuda.blockIdx.x * height * width + x0
    plane = tall * wide
    place = cuda.blockIdx.x * channels * plane + x
    seen = left <= x and x < right
    row = -1
    over = float32(0)
    under = float32(0)
    for y in range(start + group, end, groups):
        value = float32(0)
        if seen and top <= y and y < bottom:
            if lows[y - start] != row:
                row = lows[y - start]
                over = _across(raw, base + row * width, step, wx)
                under = _across(raw, base + row * width + line, step, wx)
            weight = weights[y - start]
            value = over * (float32(1) - weight) + under * weight
        at = place + y * wide
        channel = 0
        while channel + 2 < channels:  # there are usually three
            g0 = read(guided, at)
            g1 = read(guided, at + plane)
            g2 = read(guided, at + 2 * plane)
            out[at] = g0 * value
            out[at + plane] = g1 * value
            out[at + 2 * plane] = g2 * value
            at += 3 * plane
            channel += 3
        while channel < channels:
            out[at] = read(guided, at) * value
            at += plane
            channel += 1


@cuda.jit(device=True)
def _byte(level):
    """Round to the nearest byte."""
    return np.uint8(min(max(level + float32(0.5), float32(0)), float32(255)))


@compiled
def paint(photo, raw, peak, colours, out, sizes, places, alpha, shade):
    """Resize, normalise, colour and blend. Block ``(y, z)``: band of rows, stretch of columns."""
    height, width, tall, wide, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    table = cuda.shared.array(TABLE, float32)
    me = cuda.threadIdx.x
    i = me
    while i < TABLE:
        table[i] = float32(colours[i])
        i += THREADS
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    x, group, groups = _column(wide)
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step, line = _steps(height, width)
    largest = peak[0]
    most = float32(alpha)
    dark = float32(shade)
    seen = left <= x and x < right
    row = -1
    over = float32(0)
    under = float32(0)
    for y in range(start + group, end, groups):
        at = 3 * (y * wide + x)
        red = float32(photo[at])
        green = float32(photo[at + 1])
        blue = float32(photo[at + 2])
        if seen and top <= y and y < bottom:
            level = 0
            if largest > 0:
                if lows[y - start] != row:
                    row = lows[y - start]
                    over = _across(raw, x0 + row * width, step, wx) / largest
                    under = _across(raw, x0 + row * width + line, step, wx) / largest
                weight = weights[y - start]
                value = over * (float32(1) - weight) + under * weight
                value = min(max(value, float32(0)), float32(1))
                level = 3 * int(value * float32(LEVELS - 1) + float32(0.5))
            weight = most * min(float32(2 * level) / float32(TABLE - 3), float32(1))
            red += weight * (table[level] - red)
            green += weight * (table[level + 1] - green)
            blue += weight * (table[level + 2] - blue)
        else:
            red *= dark
            green *= dark
            blue *= dark
        out[at] = _byte(red)
        out[at + 1] = _byte(green)
        out[at + 2] = _byte(blue)
