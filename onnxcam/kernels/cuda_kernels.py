"""The GPU code behind :mod:`onnxcam.kernels.cuda`, in Numba CUDA.

Not yet run on a GPU: so far checked in Numba's simulator, and compiled to PTX for compute
capability 9.0 (``tests/kernels/test_cuda.py``).

Arrays are flat and contiguous. Neighbouring threads read and write neighbouring elements, four
to eight loads stand before their first use, and a block's threads meet in shared memory only:
the simulator knows no shuffles. Sums start in float32 over a few dozen terms and are added up in
float64. Blocks are one-dimensional, of :data:`THREADS` threads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from numba import cuda, float32, float64, int32, uint64
from numba.cuda.core import config

from onnxcam.cache import cache_folder

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 16 if SIMULATED else 256  # of a block; the simulator's are Python's
TILE = 4096  # elements that a block stages in shared memory
CHUNK = 512  # channels whose weights a block holds
BAND = 32  # rows of a picture that a block makes
PADDED = TILE + TILE // 32
LEVELS = 256
TABLE = 3 * LEVELS


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """Let Numba keep compiled kernels in onnxcam's cache, unless the user chose a folder."""
    before = config.CACHE_DIR
    with contextlib.suppress(RuntimeError):  # no home: Numba looks for a place itself
        config.CACHE_DIR = before or str(cache_folder() / "cuda")
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _compiled(function):
    with _own_cache():
        return cuda.jit(cache=True)(function)


@cuda.jit(device=True)
def _read(values, at):
    """Return one value; an unsigned index spares the test for a negative one."""
    return float32(values[uint64(at)])


@cuda.jit(device=True)
def _put(stage, i, value):
    """Stage element ``i`` and return this thread's next one."""
    stage[uint64(i + (i >> 5))] = value
    return i + THREADS


@cuda.jit(device=True)
def _row_means(values, start, rows, places, lanes, stage, part, means, first):
    """Write the means of consecutive rows into ``means[first:]``.

    The rows, at most TILE values together, are staged in shared memory with one element's gap
    after every 32, so that ``lanes`` threads (a power of two) can sum each of them without
    meeting in a bank.
    """
    me = cuda.threadIdx.x
    count = rows * places
    i = me
    while i + 7 * THREADS < count:
        at = start + i
        v0 = _read(values, at)
        v1 = _read(values, at + THREADS)
        v2 = _read(values, at + 2 * THREADS)
        v3 = _read(values, at + 3 * THREADS)
        v4 = _read(values, at + 4 * THREADS)
        v5 = _read(values, at + 5 * THREADS)
        v6 = _read(values, at + 6 * THREADS)
        v7 = _read(values, at + 7 * THREADS)
        i = _put(stage, i, v0)
        i = _put(stage, i, v1)
        i = _put(stage, i, v2)
        i = _put(stage, i, v3)
        i = _put(stage, i, v4)
        i = _put(stage, i, v5)
        i = _put(stage, i, v6)
        i = _put(stage, i, v7)
    while i < count:
        i = _put(stage, i, _read(values, start + i))
    cuda.syncthreads()
    row = me // lanes
    lane = me - row * lanes
    total = float32(0)
    if row < rows:
        for j in range(lane, places, lanes):
            at = row * places + j
            total += _read(stage, at + (at >> 5))
    part[me] = total
    cuda.syncthreads()
    if row < rows and lane == 0:
        for j in range(1, lanes):
            total += part[me + j]
        means[first + row] = total / float32(places)


@cuda.jit(device=True)
def _groups_total(total, sums, width, groups):
    """Return to the first group's threads the sum over all groups of ``width`` threads."""
    me = cuda.threadIdx.x
    sums[me] = total
    cuda.syncthreads()
    if me < width:
        for group in range(1, groups):
            total += sums[me + group * width]
    return total


@_compiled
def combine(activations, gradients, out, targets, channels, places, share, rows, lanes, relu):
    """Pool gradients and sum weighted activations, for maps of at most a block's threads.

    Block ``(x, y)`` has slice ``x`` of ``[N, T]`` and the ``y``-th share of the channels. It
    pools the gradients of up to CHUNK channels, then reads these channels' activations, whose
    places keep to the same threads.
    """
    stage = cuda.shared.array(PADDED, float32)
    part = cuda.shared.array(THREADS, float32)
    means = cuda.shared.array(CHUNK, float32)
    sums = cuda.shared.array(THREADS, float64)
    me = cuda.threadIdx.x
    groups = THREADS // places
    group = me // places
    pair = cuda.blockIdx.x
    begin = cuda.blockIdx.y * share
    end = min(begin + share, channels)
    total = float64(0)
    for first in range(begin, end, CHUNK):
        last = min(first + CHUNK, end)
        for row in range(first, last, rows):
            start = (pair * channels + row) * places
            count = min(rows, last - row)
            _row_means(gradients, start, count, places, lanes, stage, part, means, row - first)
        cuda.syncthreads()
        if group < groups:
            step = groups * places
            k = group
            at = (pair // targets * channels + first) * places + me
            while k + 7 * groups < last - first:
                a0 = _read(activations, at)
                a1 = _read(activations, at + step)
                a2 = _read(activations, at + 2 * step)
                a3 = _read(activations, at + 3 * step)
                a4 = _read(activations, at + 4 * step)
                a5 = _read(activations, at + 5 * step)
                a6 = _read(activations, at + 6 * step)
                a7 = _read(activations, at + 7 * step)
                near = (_read(means, k) * a0 + _read(means, k + groups) * a1) + (
                    _read(means, k + 2 * groups) * a2 + _read(means, k + 3 * groups) * a3
                )
                far = (_read(means, k + 4 * groups) * a4 + _read(means, k + 5 * groups) * a5) + (
                    _read(means, k + 6 * groups) * a6 + _read(means, k + 7 * groups) * a7
                )
                total += float64(near + far)
                k += 8 * groups
                at += 8 * step
            while k < last - first:
                total += float64(_read(means, k) * _read(activations, at))
                k += groups
                at += step
    total = _groups_total(total, sums, places, groups)
    if me < places:
        if relu and total < 0:
            total = 0.0
        out[(cuda.blockIdx.y * cuda.gridDim.x + pair) * places + me] = float32(total)


@_compiled
def pool(gradients, means, count, places, rows, lanes):
    """Average rows of at most TILE places, some rows a block."""
    stage = cuda.shared.array(PADDED, float32)
    part = cuda.shared.array(THREADS, float32)
    first = cuda.blockIdx.x * rows
    mine = min(rows, count - first)
    _row_means(gradients, first * places, mine, places, lanes, stage, part, means, first)


@_compiled
def pool_long(gradients, means, places):
    """Average one row of any length a block."""
    sums = cuda.shared.array(THREADS, float64)
    me = cuda.threadIdx.x
    start = cuda.blockIdx.x * places
    total = float64(0)
    i = me
    while i + 7 * THREADS < places:
        at = start + i
        near = (_read(gradients, at) + _read(gradients, at + THREADS)) + (
            _read(gradients, at + 2 * THREADS) + _read(gradients, at + 3 * THREADS)
        )
        far = (_read(gradients, at + 4 * THREADS) + _read(gradients, at + 5 * THREADS)) + (
            _read(gradients, at + 6 * THREADS) + _read(gradients, at + 7 * THREADS)
        )
        total += float64(near + far)
        i += 8 * THREADS
    while i < places:
        total += float64(gradients[start + i])
        i += THREADS
    sums[me] = total
    cuda.syncthreads()
    half = THREADS // 2  # a power of two
    while half > 0:
        if me < half:
            sums[me] += sums[me + half]
        cuda.syncthreads()
        half //= 2
    if me == 0:
        means[cuda.blockIdx.x] = float32(sums[0] / places)


@_compiled
def weigh(activations, weights, out, targets, channels, places, share, pixels, relu):
    """Sum activations under given weights, a channel's or (``pixels``) a place's.

    Block ``(x, y, z)`` has slice ``x`` of ``[N, T]``, the ``y``-th share of the channels and the
    ``z``-th stretch of places. Where places are few, groups of threads take every
    ``groups``-th channel.
    """
    sums = cuda.shared.array(THREADS, float64)
    me = cuda.threadIdx.x
    width = min(places, THREADS)
    groups = THREADS // width
    group = me // width
    place = cuda.blockIdx.z * THREADS + me - group * width
    pair = cuda.blockIdx.x
    begin = cuda.blockIdx.y * share
    end = min(begin + share, channels)
    total = float64(0)
    if group < groups and place < places:
        step = groups * places
        k = begin + group
        at = (pair // targets * channels + k) * places + place
        # Where a weight is a place's, weights lie as activations do.
        hop = step if pixels else groups
        by = (pair * channels + k) * places + place if pixels else pair * channels + k
        while k + 3 * groups < end:
            a0 = _read(activations, at)
            a1 = _read(activations, at + step)
            a2 = _read(activations, at + 2 * step)
            a3 = _read(activations, at + 3 * step)
            w0 = _read(weights, by)
            w1 = _read(weights, by + hop)
            w2 = _read(weights, by + 2 * hop)
            w3 = _read(weights, by + 3 * hop)
            total += float64((w0 * a0 + w1 * a1) + (w2 * a2 + w3 * a3))
            k += 4 * groups
            at += 4 * step
            by += 4 * hop
        while k < end:
            total += float64(_read(weights, by) * _read(activations, at))
            k += groups
            at += step
            by += hop
    total = _groups_total(total, sums, width, groups)
    if group == 0 and place < places:
        if relu and total < 0:
            total = 0.0
        out[(cuda.blockIdx.y * cuda.gridDim.x + pair) * places + place] = float32(total)


@_compiled
def finish(partial, out, shares, count, relu):
    """Add up the partial maps that the channels' shares gave."""
    i = cuda.grid(1)
    if i < count:
        total = float64(0)
        for share in range(shares):
            total += float64(partial[share * count + i])
        if relu and total < 0:
            total = 0.0
        out[i] = float32(total)


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
    first = _finite(_read(raw, at))
    second = _finite(_read(raw, at + step))
    return first * (float32(1) - weight) + second * weight


@cuda.jit(device=True)
def _stage_rows(lows, weights, top, bottom, scale, offset, length):
    """Compute once a block which map rows the rows of a picture lie between."""
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

    Between two elements of the map the value is linear, so it is largest at the first or last
    pixel there: at one of the three around each element, or at an end of the visible part.
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


@_compiled
def peaks(raw, out, sizes, places):
    """Find the largest value of each resized map, at least 0; one map a block."""
    height, width, _, _, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    best = cuda.shared.array(THREADS, float32)
    me = cuda.threadIdx.x
    down = _candidates(top, bottom, height, row_scale)
    along = _candidates(left, right, width, column_scale)
    base = cuda.blockIdx.x * height * width
    step = 1 if width > 1 else 0
    line = width if height > 1 else 0
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


@_compiled
def upsample(raw, peak, out, sizes, places, normalise):
    """Resize maps. Block ``(x, y, z)``: map ``x``, band ``y`` of rows, stretch ``z`` of columns.

    A thread keeps to its columns and interpolates across only when the pair of map rows changes,
    so a pixel costs two multiplications and a store.
    """
    height, width, tall, wide, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    me = cuda.threadIdx.x
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    across = min(wide, THREADS)
    groups = THREADS // across
    group = me // across
    x = cuda.blockIdx.z * THREADS + me - group * across
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step = 1 if width > 1 else 0
    line = width if height > 1 else 0
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


@_compiled
def fuse(guided, raw, out, channels, sizes, places):
    """Multiply guided gradients by the resized map, which is never stored."""
    height, width, tall, wide, top, bottom, left, right = sizes
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(BAND, int32)
    weights = cuda.shared.array(BAND, float32)
    me = cuda.threadIdx.x
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    across = min(wide, THREADS)
    groups = THREADS // across
    group = me // across
    x = cuda.blockIdx.z * THREADS + me - group * across
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step = 1 if width > 1 else 0
    line = width if height > 1 else 0
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
        while channel + 2 < channels:  # most often there are three
            g0 = _read(guided, at)
            g1 = _read(guided, at + plane)
            g2 = _read(guided, at + 2 * plane)
            out[at] = g0 * value
            out[at + plane] = g1 * value
            out[at + 2 * plane] = g2 * value
            at += 3 * plane
            channel += 3
        while channel < channels:
            out[at] = _read(guided, at) * value
            at += plane
            channel += 1


@_compiled
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
        table[i] = float32(alpha * float64(colours[i]) + 0.5)  # 0.5 rounds
        i += THREADS
    start = cuda.blockIdx.y * BAND
    end = min(start + BAND, tall)
    _stage_rows(lows, weights, start, end, row_scale, row_offset, height)
    across = min(wide, THREADS)
    groups = THREADS // across
    group = me // across
    x = cuda.blockIdx.z * THREADS + me - group * across
    if group >= groups or x >= wide:
        return
    x0, wx = _sample(x, column_scale, column_offset, width)
    step = 1 if width > 1 else 0
    line = width if height > 1 else 0
    largest = peak[0]
    keep = float32(1.0 - alpha)
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
            red = keep * red + table[level]
            green = keep * green + table[level + 1]
            blue = keep * blue + table[level + 2]
        else:
            red = dark * red + float32(0.5)
            green = dark * green + float32(0.5)
            blue = dark * blue + float32(0.5)
        out[at] = np.uint8(min(red, float32(255)))
        out[at + 1] = np.uint8(min(green, float32(255)))
        out[at + 2] = np.uint8(min(blue, float32(255)))
