"""Resizing and multiplying maps: GPU code of :mod:`onnxcam.kernels.cuda`.

What :mod:`onnxcam.kernels.cuda_paint` shares of it has no underscore.
"""

from __future__ import annotations

import math

from numba import cuda, float32, float64, int32, uint32, uint64

from onnxcam.kernels.cuda_common import THREADS, WARP, WARPS, compiled, read

BAND = 128  # rows of a picture that a block of ``upsample`` computes
STRIP = 32  # the same of ``fuse``, whose rows take more time
COLUMNS = 4  # of a thread
SPAN = COLUMNS * WARP  # columns of a warp
CHANNELS = 3  # that ``fuse`` loads at once
LOADS = CHANNELS * COLUMNS


@cuda.jit(device=True)
def narrow(sizes):
    """Return lengths as int32, with which a GPU counts twice as fast."""
    height, width, tall, wide, top, bottom, left, right = sizes
    return (
        (int32(height), int32(width), int32(tall), int32(wide)),
        (int32(top), int32(bottom)),
        (int32(left), int32(right)),
    )


@cuda.jit(device=True)
def sample(pixel, scale, offset, length):
    """Return the map element below a pixel and the weight of the next one."""
    u = (pixel + 0.5) * scale + offset - 0.5
    u = min(max(u, 0.0), float64(length - 1))
    low = min(int32(u), int32(max(length - 2, 0)))
    return low, float32(u - low)


@cuda.jit(device=True)
def _finite(number):
    return number if math.isfinite(number) else float32(0)


@cuda.jit(device=True)
def across(raw, at, step, weight):
    """Interpolate within a row of the map."""
    first = _finite(read(raw, at))
    second = _finite(read(raw, at + step))
    return first * (float32(1) - weight) + second * weight


@cuda.jit(device=True)
def steps(height, width):
    """Return the distances to the next column and row of a map, 0 where there is none."""
    return uint64(1 if width > 1 else 0), uint64(width if height > 1 else 0)


@cuda.jit(device=True)
def _strip(wide):
    """Return this thread's first column of a picture, its group of warps and the number of groups.

    A thread has COLUMNS columns, WARP apart; the warps of a group lie side by side and share
    their rows. Where pictures are narrow, a block has several groups.
    """
    side = uint32(min((uint32(wide) + uint32(SPAN - 1)) // uint32(SPAN), uint32(WARPS)))
    me = uint32(cuda.threadIdx.x)
    warp = me // uint32(WARP)
    group = warp // side
    x = uint32(cuda.blockIdx.z) * uint32(SPAN * WARPS) + (warp - group * side) * uint32(SPAN)
    return int32(x + me % uint32(WARP)), int32(group), int32(uint32(WARPS) // side)


@cuda.jit(device=True)
def _room(x, wide):
    """Return how many of a thread's columns lie in the picture: at least its first."""
    return int32(min(uint32(wide - 1 - x) // uint32(WARP) + uint32(1), uint32(COLUMNS)))


@cuda.jit(device=True)
def _rows(band, start, tall, group, groups):
    """Return a group's first row of a band, from ``start`` on, and one past its last."""
    mine = int32((uint32(band) + uint32(groups) - uint32(1)) // uint32(groups))
    first = int32(group * mine)
    return first, int32(min(first + mine, min(int32(band), tall - start)))


@cuda.jit(device=True)
def stage_rows(lows, weights, start, end, axis, scale, offset, length):
    """Compute, once for a block, which map rows each row of a picture lies between.

    Args:
        lows: the row above, -1 where the map is not visible.
        weights: the weight of the row below.
        start: first row of the picture.
        end: one past the last.
        axis: first visible row and one past the last.
        scale: see :class:`onnxcam.kernels.view.Axis`, as ``offset``.
        offset: see above.
        length: rows of the map.
    """
    i = int32(cuda.threadIdx.x)
    while i < end - start:
        low, weight = sample(start + i, scale, offset, length)
        lows[uint32(i)] = low if axis[0] <= start + i and start + i < axis[1] else int32(-1)
        weights[uint32(i)] = weight
        i = int32(i + THREADS)
    cuda.syncthreads()


@cuda.jit(device=True)
def _stage_columns(lows, weights, x, axis, scale, offset, length):
    """Do the same for a thread's columns."""
    for c in range(COLUMNS):
        column = int32(x + c * WARP)
        low, weight = sample(column, scale, offset, length)
        lows[c] = low if axis[0] <= column and column < axis[1] else int32(-1)
        weights[c] = weight


@cuda.jit(device=True)
def _turn(raw, base, row, width, lows, weights, step, line, scale, over, under):
    """Interpolate within a row of the map, and within the next, at a thread's columns."""
    for c in range(COLUMNS):
        over[c] = float32(0)
        under[c] = float32(0)
        if row >= 0 and lows[c] >= 0:
            at = base + uint64(row * width + lows[c])
            over[c] = across(raw, at, step, weights[c]) / scale
            under[c] = across(raw, at + line, step, weights[c]) / scale


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


@cuda.jit(device=True)
def _stage_candidates(lows, weights, start, count, axis, scale, offset, length):
    """Compute where up to THREADS candidates of an axis, from ``start`` on, lie on the map."""
    me = cuda.threadIdx.x
    if me < count:
        pixel = _candidate(start + me, axis[0], axis[1], length, scale, offset)
        low, weight = sample(pixel, scale, offset, length)
        lows[me] = low
        weights[me] = weight


@compiled
def peaks(raw, out, sizes, places):
    """Find the largest value of each resized map, at least 0; one map in a block.

    Candidates are staged a block's threads at a time; a warp takes rows, its lanes columns.
    """
    (height, width, _, _), (top, bottom), (left, right) = narrow(sizes)
    row_scale, row_offset, column_scale, column_offset = places
    best = cuda.shared.array(THREADS, float32)
    row_lows = cuda.shared.array(THREADS, int32)
    row_weights = cuda.shared.array(THREADS, float32)
    lows = cuda.shared.array(THREADS, int32)
    weights = cuda.shared.array(THREADS, float32)
    me = cuda.threadIdx.x
    down = _candidates(top, bottom, height, row_scale)
    along = _candidates(left, right, width, column_scale)
    base = uint64(cuda.blockIdx.x) * uint64(height * width)
    step, line = steps(height, width)
    largest = float32(0)
    for first_row in range(0, down, THREADS):
        rows = min(down - first_row, THREADS)
        for first in range(0, along, THREADS):
            columns = min(along - first, THREADS)
            axis = (top, bottom)
            _stage_candidates(
                row_lows, row_weights, first_row, rows, axis, row_scale, row_offset, height
            )
            axis = (left, right)
            _stage_candidates(
                lows, weights, first, columns, axis, column_scale, column_offset, width
            )
            cuda.syncthreads()
            for row in range(me // WARP, rows, WARPS):
                for column in range(me % WARP, columns, WARP):
                    at = base + uint64(row_lows[row] * width + lows[column])
                    over = across(raw, at, step, weights[column])
                    under = across(raw, at + line, step, weights[column])
                    weight = row_weights[row]
                    largest = max(largest, over * (float32(1) - weight) + under * weight)
            cuda.syncthreads()
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

    A thread goes down consecutive rows and interpolates within the map's rows only where the pair
    of them changes, so a pixel costs two multiplications and a store.
    """
    (height, width, tall, wide), down, along = narrow(sizes)
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    columns, shares = cuda.local.array(COLUMNS, int32), cuda.local.array(COLUMNS, float32)
    over, under = cuda.local.array(COLUMNS, float32), cuda.local.array(COLUMNS, float32)
    start = int32(cuda.blockIdx.y * BAND)
    end = min(int32(start + BAND), tall)
    stage_rows(lows, weights, start, end, down, row_scale, row_offset, height)
    x, group, groups = _strip(wide)
    if group >= groups or x >= wide:
        return
    _stage_columns(columns, shares, x, along, column_scale, column_offset, width)
    step, line = steps(height, width)
    scale = float32(1)
    if normalise and peak[cuda.blockIdx.x] > 0:
        scale = peak[cuda.blockIdx.x]
    i, last = _rows(BAND, start, tall, group, groups)
    row = int32(-2)
    room = _room(x, wide)
    base = uint64(cuda.blockIdx.x) * uint64(height * width)
    at = (uint64(cuda.blockIdx.x) * uint64(tall) + uint64(start + i)) * uint64(wide) + uint64(x)
    while i < last:
        if lows[uint32(i)] != row:
            row = lows[uint32(i)]
            _turn(raw, base, row, width, columns, shares, step, line, scale, over, under)
        weight = weights[uint32(i)]
        for c in range(COLUMNS):
            value = over[c] * (float32(1) - weight) + under[c] * weight
            if normalise:
                value = min(value, float32(1))
            if c < room:
                out[at + uint64(c * WARP)] = value
        at += uint64(wide)
        i = int32(i + 1)


@cuda.jit(device=True)
def _channels(count, guided, out, at, plane, hops, heat, room):
    """Multiply ``count`` channels, at most CHANNELS: all loads come before the first store."""
    loaded = cuda.local.array(LOADS, float32)
    for k in range(CHANNELS):
        for c in range(COLUMNS):
            loaded[k * COLUMNS + c] = read(guided, at + uint64(min(k, count - 1)) * plane + hops[c])
    for k in range(CHANNELS):
        for c in range(COLUMNS):
            if k < count and c < room:
                to = at + uint64(k) * plane + uint64(c * WARP)
                out[to] = loaded[k * COLUMNS + c] * heat[c]


@compiled
def fuse(guided, raw, out, channels, sizes, places):
    """Multiply guided gradients by the resized map, which is never stored; see ``upsample``."""
    (height, width, tall, wide), down, along = narrow(sizes)
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(STRIP, int32)
    weights = cuda.shared.array(STRIP, float32)
    columns, shares = cuda.local.array(COLUMNS, int32), cuda.local.array(COLUMNS, float32)
    over, under = cuda.local.array(COLUMNS, float32), cuda.local.array(COLUMNS, float32)
    heat, hops = cuda.local.array(COLUMNS, float32), cuda.local.array(COLUMNS, uint64)
    start = int32(cuda.blockIdx.y * STRIP)
    end = min(int32(start + STRIP), tall)
    stage_rows(lows, weights, start, end, down, row_scale, row_offset, height)
    x, group, groups = _strip(wide)
    if group >= groups or x >= wide:
        return
    _stage_columns(columns, shares, x, along, column_scale, column_offset, width)
    step, line = steps(height, width)
    room = _room(x, wide)
    for c in range(COLUMNS):  # a thread without a column there reads its last one again
        hops[c] = uint64(min(c, room - 1) * WARP)
    i, last = _rows(STRIP, start, tall, group, groups)
    row = int32(-2)
    base = uint64(cuda.blockIdx.x) * uint64(height * width)
    plane = uint64(tall) * uint64(wide)
    place = uint64(cuda.blockIdx.x) * uint64(channels) * plane
    place += uint64(start + i) * uint64(wide) + uint64(x)
    while i < last:
        if lows[uint32(i)] != row:
            row = lows[uint32(i)]
            _turn(raw, base, row, width, columns, shares, step, line, float32(1), over, under)
        weight = weights[uint32(i)]
        for c in range(COLUMNS):
            heat[c] = over[c] * (float32(1) - weight) + under[c] * weight
        at = place
        left_over = int32(channels)
        while left_over >= CHANNELS:  # there are usually three
            _channels(CHANNELS, guided, out, at, plane, hops, heat, room)
            at += uint64(CHANNELS) * plane
            left_over = int32(left_over - CHANNELS)
        if left_over > 0:
            _channels(left_over, guided, out, at, plane, hops, heat, room)
        place += uint64(wide)
        i = int32(i + 1)
