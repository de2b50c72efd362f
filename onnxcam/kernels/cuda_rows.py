"""Sums over rows by warps and shuffles: GPU code of :mod:`onnxcam.kernels.cuda`.

The simulator has no shuffles, and takes what :mod:`onnxcam.kernels.cuda_sums` has instead.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, float32, float64, int32, uint64

from onnxcam.kernels.cuda_common import THREADS, WARP, WARPS, compiled, read

LOADS = 16  # registers for gradients, and as many for activations
MOST = 8 * WARP  # positions that :func:`combine_rows` takes
LONG = 8192  # positions of a row from which on a block takes one, not a warp
TAKEN = 8  # values that :func:`pool_rows` loads at once
_ALL = 0xFFFFFFFF


def channels_of(columns: int) -> int:
    """Return how many channels a warp takes at a time: a power of two, few enough for LOADS."""
    return 1 << (LOADS // columns).bit_length() - 1


def _fold(half: int, hop: int) -> Any:
    """Return code that adds up sums among lanes until each is spread over ``2 * hop`` of them.

    In each step the upper lanes keep the second half of the sums and send the first, so that
    ``half`` sums are left; a single one is kept by all lanes.
    """

    @cuda.jit(device=True)
    def step(sums):
        upper = cuda.threadIdx.x & hop != 0
        for c in range(half):
            low, high = sums[c], sums[c + half]  # read before choosing: registers have no address
            kept = high if upper else low
            sent = low if upper else high
            sums[c] = kept + cuda.shfl_xor_sync(_ALL, sent, hop)
        if half == 0:
            sums[0] += cuda.shfl_xor_sync(_ALL, sums[0], hop)

    if hop == 1:
        return step
    rest = _fold(half // 2, hop // 2)

    @cuda.jit(device=True)
    def steps(sums):
        step(sums)
        rest(sums)

    return steps


def _loader(columns: int) -> Any:
    """Return code that loads a warp's channels; ``more`` lanes have a last position."""
    channels, before = channels_of(columns), columns - 1

    @cuda.jit(device=True)
    def load(values, into, at, row, more):
        # A lane without a last position reads its last but one again.
        hop = uint64(before * WARP if more else max(before - 1, 0) * WARP)
        for c in range(channels):
            for p in range(before):
                into[c * columns + p] = read(values, at + uint64(c) * row + uint64(p * WARP))
            into[c * columns + before] = read(values, at + uint64(c) * row + hop)

    return load


def _single(columns: int) -> Any:
    """Return code that adds one channel, where too few are left for all at a time."""
    before = columns - 1

    @cuda.jit(device=True)
    def add(gradients, activations, g_at, a_at, more, scale, totals):
        mean = float32(0)
        for p in range(columns):
            if p < before or more:
                mean += read(gradients, g_at + uint64(p * WARP))
        hop = WARP // 2
        while hop > 0:
            mean += cuda.shfl_xor_sync(_ALL, mean, hop)
            hop //= 2
        for p in range(columns):
            if p < before or more:
                totals[p] += float64(mean * scale * read(activations, a_at + uint64(p * WARP)))

    return add


def _writer(columns: int) -> Any:
    """Return code that adds up the sums of a block's warps, and writes them from ``at`` on."""

    @cuda.jit(device=True)
    def write(totals, staged, out, at, places, relu):
        me = int32(cuda.threadIdx.x)
        lane, warp = int32(me % WARP), int32(me // WARP)
        for p in range(columns):
            staged[me] = totals[p]
            cuda.syncthreads()
            if warp == 0 and lane + p * WARP < places:
                total = 0.0
                for w in range(WARPS):
                    total += staged[w * WARP + lane]
                if relu and total < 0:
                    total = 0.0
                out[at + uint64(lane + p * WARP)] = float32(total)
            cuda.syncthreads()

    return write


@cache
def combine_rows(columns: int) -> Any:
    """Return Grad-CAM's kernel for maps of ``columns * WARP`` positions, or less than WARP fewer.

    A lane has the positions ``lane``, ``lane + WARP``, ...; a warp takes several channels at a
    time. Nothing is exchanged in shared memory before the end.
    """
    channels, before = channels_of(columns), columns - 1  # columns that every lane has
    fold = _fold(channels // 2, WARP // 2)  # channel c ends in lanes c * WARP / channels on
    load, add, write = _loader(columns), _single(columns), _writer(columns)

    def rows(activations, gradients, out, targets, count, places, share, relu):
        g, a = cuda.local.array(LOADS, float32), cuda.local.array(LOADS, float32)
        sums, totals = cuda.local.array(LOADS, float32), cuda.local.array(8, float64)
        staged = cuda.shared.array(THREADS, float64)
        me = int32(cuda.threadIdx.x)
        lane, warp = int32(me % WARP), int32(me // WARP)
        pair = cuda.blockIdx.x
        first = cuda.blockIdx.y * share + warp * channels
        end = min(cuda.blockIdx.y * share + share, count)
        more = lane + before * WARP < places
        # A lane that has no position at all reads the last one.
        place = min(lane, int32(places - 1)) if columns == 1 else lane
        scale = float32(1) / float32(places)
        for p in range(columns):
            totals[p] = 0.0
        g_at = uint64((pair * count + first) * places + place)
        a_at = uint64((pair // targets * count + first) * places + place)
        row, ahead = uint64(places), uint64(WARPS * channels * places)
        while first + channels <= end:
            load(gradients, g, g_at, row, more)
            load(activations, a, a_at, row, more)
            cuda.syncwarp()  # keeps the compiler from using the first before it loads the last
            for c in range(channels):
                last = g[c * columns + before]
                sums[c] = last if more else float32(0)
                for p in range(before):
                    sums[c] += g[c * columns + p]
            fold(sums)
            mean = sums[0] * scale
            for c in range(channels):
                sums[c] = cuda.shfl_sync(_ALL, mean, c * (WARP // channels))
            for p in range(columns):
                total = float32(0)
                for c in range(channels):
                    total += sums[c] * a[c * columns + p]
                totals[p] += float64(total)
            first += WARPS * channels
            g_at += ahead
            a_at += ahead
        while first < end:  # fewer than ``channels``, of one warp
            add(gradients, activations, g_at, a_at, more, scale, totals)
            first += 1
            g_at += row
            a_at += row
        at = uint64((cuda.blockIdx.y * cuda.gridDim.x + pair) * places)
        write(totals, staged, out, at, places, relu)

    rows.__name__ = f"combine_rows_{columns}"
    return compiled(rows)


@compiled
def pool_rows(gradients, means, count, places):
    """Average rows, one a warp."""
    loaded = cuda.local.array(TAKEN, float32)
    lane = int32(cuda.threadIdx.x % WARP)
    row = uint64(cuda.blockIdx.x) * uint64(WARPS) + uint64(cuda.threadIdx.x // WARP)
    if row >= uint64(count):
        return
    at = row * uint64(places) + uint64(lane)
    left = int32(places - lane)
    total = 0.0
    while left > (TAKEN - 1) * WARP:
        for i in range(TAKEN):
            loaded[i] = read(gradients, at + uint64(i * WARP))
        for i in range(TAKEN // 2):
            loaded[i] += loaded[i + TAKEN // 2]
        total += float64((loaded[0] + loaded[1]) + (loaded[2] + loaded[3]))
        at += uint64(TAKEN * WARP)
        left = int32(left - TAKEN * WARP)
    while left > 0:
        total += float64(read(gradients, at))
        at += uint64(WARP)
        left = int32(left - WARP)
    mean = float32(total / places)
    hop = WARP // 2
    while hop > 0:
        mean += cuda.shfl_xor_sync(_ALL, mean, hop)
        hop //= 2
    if lane == 0:
        means[row] = mean
