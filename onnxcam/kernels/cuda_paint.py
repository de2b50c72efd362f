"""Painting maps over photographs: GPU code of :mod:`onnxcam.kernels.cuda`."""

from __future__ import annotations

from numba import cuda, float32, int32, uint8, uint32, uint64

from onnxcam.kernels.cuda_common import THREADS, compiled
from onnxcam.kernels.cuda_pictures import across, narrow, sample, stage_rows, steps

STRIP = 32  # rows of a picture that a block computes
PIXELS = 4  # neighbours that a thread computes: three words of four bytes
LEVELS = 256
TABLE = 3 * LEVELS


@cuda.jit(device=True)
def _stage_colours(table, colours):
    """Stage the colour table; ``stage_rows``, which comes after it, waits."""
    i = cuda.threadIdx.x
    while i < TABLE:
        table[i] = float32(colours[i])
        i += THREADS


@cuda.jit(device=True)
def _column(wide, pixels):
    """Return this thread's first column, its group of threads and the number of groups.

    A group computes a row, ``pixels`` neighbours a thread; where pictures are narrow, a block has
    several groups.
    """
    along = min((uint32(wide) + uint32(pixels - 1)) // uint32(pixels), uint32(THREADS))
    me = uint32(cuda.threadIdx.x)
    group = me // along
    x = (uint32(cuda.blockIdx.z) * uint32(THREADS) + me - group * along) * uint32(pixels)
    return int32(x), int32(group), int32(uint32(THREADS) // along)


@cuda.jit(device=True)
def _level(over, under, weight, largest):
    """Return the place in the table of a value between two of the map's rows."""
    if not largest > 0:
        return int32(0)
    value = over * (float32(1) - weight) + under * weight
    value = min(max(value, float32(0)), float32(1))
    return int32(3) * int32(value * float32(LEVELS - 1) + float32(0.5))


@cuda.jit(device=True)
def _opacity(level, most):
    return most * min(float32(2 * level) / float32(TABLE - 3), float32(1))


@cuda.jit(device=True)
def _blend(grey, colour, weight):
    """Return a byte; between two bytes, so that rounding needs no limits."""
    return uint32(grey + weight * (colour - grey) + float32(0.5))


@compiled
def paint(photo, raw, peak, colours, out, sizes, places, alpha, shade):
    """Resize, normalise, colour and blend. Block ``(y, z)``: band of rows, stretch of columns."""
    (height, width, tall, wide), down, (left, right) = narrow(sizes)
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(STRIP, int32)
    weights = cuda.shared.array(STRIP, float32)
    table = cuda.shared.array(TABLE, float32)
    _stage_colours(table, colours)
    start = int32(cuda.blockIdx.y * STRIP)
    end = min(int32(start + STRIP), tall)
    stage_rows(lows, weights, start, end, down, row_scale, row_offset, height)
    x, group, groups = _column(wide, 1)
    if group >= groups or x >= wide:
        return
    x0, wx = sample(x, column_scale, column_offset, width)
    step, line = steps(height, width)
    largest = peak[0]
    most, dark = float32(alpha), float32(shade)
    seen = left <= x and x < right
    row = int32(-2)
    over = under = float32(0)
    for y in range(start + group, end, groups):
        low = lows[uint32(y - start)]
        if seen and low >= 0 and low != row and largest > 0:
            row = low
            place = uint64(low * width + x0)
            over = across(raw, place, step, wx) / largest
            under = across(raw, place + line, step, wx) / largest
        level = _level(over, under, weights[uint32(y - start)], largest)
        weight = _opacity(level, most)
        at = uint64(3) * (uint64(y) * uint64(wide) + uint64(x))
        for c in range(3):
            grey = float32(photo[at + uint64(c)])
            if seen and low >= 0:
                value = _blend(grey, table[uint32(level + c)], weight)
            else:
                value = _blend(grey * dark, float32(0), float32(0))
            out[at + uint64(c)] = uint8(value)


@cuda.jit(device=True)
def _pixel(word, byte, level, table, weight, dark, seen):
    """Return the new value of the ``byte``-th byte of a thread's twelve, in its place in a word."""
    grey = float32((word >> uint32(8 * (byte % 4))) & uint32(255))
    if seen:
        value = _blend(grey, table[uint32(level + byte % 3)], weight)
    else:
        value = _blend(grey * dark, float32(0), float32(0))
    return value << uint32(8 * (byte % 4))


@compiled
def paint_words(photo, raw, peak, colours, out, sizes, places, alpha, shade):
    """Do what ``paint`` does, for rows of whole words: ``photo`` and ``out`` are uint32."""
    (height, width, tall, wide), down, (left, right) = narrow(sizes)
    row_scale, row_offset, column_scale, column_offset = places
    lows = cuda.shared.array(STRIP, int32)
    weights = cuda.shared.array(STRIP, float32)
    table = cuda.shared.array(TABLE, float32)
    columns, shares = cuda.local.array(PIXELS, int32), cuda.local.array(PIXELS, float32)
    over, under = cuda.local.array(PIXELS, float32), cuda.local.array(PIXELS, float32)
    levels, opacities = cuda.local.array(PIXELS, int32), cuda.local.array(PIXELS, float32)
    words = cuda.local.array(3, uint32)
    _stage_colours(table, colours)
    start = int32(cuda.blockIdx.y * STRIP)
    end = min(int32(start + STRIP), tall)
    stage_rows(lows, weights, start, end, down, row_scale, row_offset, height)
    x, group, groups = _column(wide, PIXELS)
    if group >= groups or x >= wide:
        return
    step, line = steps(height, width)
    largest = peak[0]
    most, dark = float32(alpha), float32(shade)
    for c in range(PIXELS):
        low, share = sample(x + c, column_scale, column_offset, width)
        columns[c] = low if left <= x + c and x + c < right else int32(-1)
        shares[c] = share
        over[c] = under[c] = float32(0)
    row = int32(-2)
    for y in range(start + group, end, groups):
        at = uint64(3) * (uint64(y) * uint64(wide // 4) + uint64(x // 4))
        for c in range(3):
            words[c] = photo[at + uint64(c)]
        low = lows[uint32(y - start)]
        if low >= 0 and low != row and largest > 0:
            row = low
            for c in range(PIXELS):
                if columns[c] >= 0:
                    place = uint64(low * width + columns[c])
                    over[c] = across(raw, place, step, shares[c]) / largest
                    under[c] = across(raw, place + line, step, shares[c]) / largest
        for c in range(PIXELS):
            levels[c] = _level(over[c], under[c], weights[uint32(y - start)], largest)
            opacities[c] = _opacity(levels[c], most)
        for w in range(3):
            word = uint32(0)
            for b in range(4 * w, 4 * w + 4):
                p = b // 3
                seen = low >= 0 and columns[p] >= 0
                word |= _pixel(words[w], b, levels[p], table, opacities[p], dark, seen)
            out[at + uint64(w)] = word
