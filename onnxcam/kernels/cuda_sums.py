"""Pooling gradients and summing weighted activations: GPU code of :mod:`onnxcam.kernels.cuda`."""

from __future__ import annotations

from numba import cuda, float32, float64, uint64

from onnxcam.kernels.cuda_common import THREADS, compiled, read

FEW = 16  # positions of a map that :func:`combine` takes
TILE = FEW * THREADS  # elements that a block stages in shared memory
PADDED = TILE + TILE // 32
CHUNK = 512  # channels whose weights a block holds
LOADS = 8  # of activations, and as many of weights, before their first use


@cuda.jit(device=True)
def _put(stage, i, value):
    """Stage element ``i`` and return this thread's next one."""
    stage[uint64(i + (i >> 5))] = value
    return i + THREADS


@cuda.jit(device=True)
def _row_means(values, start, rows, places, stage, means, first):
    """Write the means of consecutive rows, one a thread, into ``means[first:]``.

    The rows, at most TILE values in all, are staged in shared memory with a gap of one element
    after every 32, so that threads sum their rows without bank conflicts.
    """
    me = cuda.threadIdx.x
    count = rows * places
    i = me
    while i + 7 * THREADS < count:
        at = start + i
        v0 = read(values, at)
        v1 = read(values, at + THREADS)
        v2 = read(values, at + 2 * THREADS)
        v3 = read(values, at + 3 * THREADS)
        v4 = read(values, at + 4 * THREADS)
        v5 = read(values, at + 5 * THREADS)
        v6 = read(values, at + 6 * THREADS)
        v7 = read(values, at + 7 * THREADS)
        i = _put(stage, i, v0)
        i = _put(stage, i, v1)
        i = _put(stage, i, v2)
        i = _put(stage, i, v3)
        i = _put(stage, i, v4)
        i = _put(stage, i, v5)
        i = _put(stage, i, v6)
        i = _put(stage, i, v7)
    while i < count:
        i = _put(stage, i, read(values, start + i))
    cuda.syncthreads()
    if me < rows:
        total = float32(0)
        for j in range(places):
            at = me * places + j
            total += read(stage, at + (at >> 5))
        means[first + me] = total / float32(places)


@cuda.jit(device=True)
def _groups_total(total, sums, width, groups):
    """Return the sum over all groups of ``width`` threads; only to threads of the first group."""
    me = cuda.threadIdx.x
    sums[me] = total
    cuda.syncthreads()
    if me < width:
        for group in range(1, groups):
            total += sums[me + group * width]
    return total


@compiled
def combine(activations, gradients, out, targets, channels, places, share, relu):
    """Pool gradients and sum weighted activations, for maps of at most FEW positions.

    Block ``(x, y)`` has slice ``x`` of ``[N, T]`` and the ``y``-th share of the channels. It
    pools the gradients of up to CHUNK channels, then reads these channels' activations; a thread
    always reads the same position.
    """
    stage = cuda.shared.array(PADDED, float32)
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
        for row in range(first, last, THREADS):
            start = (pair * channels + row) * places
            _row_means(
                gradients, start, min(THREADS, last - row), places, stage, means, row - first
            )
            cuda.syncthreads()
        if group < groups:
            step = groups * places
            k = group
            at = (pair // targets * channels + first) * places + me
            while k + 7 * groups < last - first:
                a0 = read(activations, at)
                a1 = read(activations, at + step)
                a2 = read(activations, at + 2 * step)
                a3 = read(activations, at + 3 * step)
                a4 = read(activations, at + 4 * step)
                a5 = read(activations, at + 5 * step)
                a6 = read(activations, at + 6 * step)
                a7 = read(activations, at + 7 * step)
                near = (read(means, k) * a0 + read(means, k + groups) * a1) + (
                    read(means, k + 2 * groups) * a2 + read(means, k + 3 * groups) * a3
                )
                far = (read(means, k + 4 * groups) * a4 + read(means, k + 5 * groups) * a5) + (
                    read(means, k + 6 * groups) * a6 + read(means, k + 7 * groups) * a7
                )
                total += float64(near + far)
                k += 8 * groups
                at += 8 * step
            while k < last - first:
                total += float64(read(means, k) * read(activations, at))
                k += groups
                at += step
    total = _groups_total(total, sums, places, groups)
    if me < places:
        if relu and total < 0:
            total = 0.0
        out[(cuda.blockIdx.y * cuda.gridDim.x + pair) * places + me] = float32(total)


@compiled
def pool(gradients, means, places):
    """Average rows of any length, one row in a block; partial sums are added up as a tree."""
    sums = cuda.shared.array(THREADS, float64)
    me = cuda.threadIdx.x
    start = cuda.blockIdx.x * places
    total = float64(0)
    i = me
    while i + 7 * THREADS < places:
        at = start + i
        near = (read(gradients, at) + read(gradients, at + THREADS)) + (
            read(gradients, at + 2 * THREADS) + read(gradients, at + 3 * THREADS)
        )
        far = (read(gradients, at + 4 * THREADS) + read(gradients, at + 5 * THREADS)) + (
            read(gradients, at + 6 * THREADS) + read(gradients, at + 7 * THREADS)
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


@compiled
def weigh(activations, weights, out, targets, channels, places, share, pixels, stretches, relu):
    """Sum activations weighted by channel or (``pixels``) by position.

    Block ``(x, y)`` has stretch ``x % stretches`` of the positions of slice ``x // stretches`` of
    ``[N, T]``, and the ``y``-th share of the channels. Where there are few positions, groups of
    threads take every ``groups``-th channel.
    """
    sums = cuda.shared.array(THREADS, float64)
    a, w = cuda.local.array(LOADS, float32), cuda.local.array(LOADS, float32)
    me = cuda.threadIdx.x
    width = min(places, THREADS)
    groups = THREADS // width
    group = me // width
    pair = cuda.blockIdx.x // stretches
    place = (cuda.blockIdx.x - pair * stretches) * THREADS + me - group * width
    begin = cuda.blockIdx.y * share
    end = min(begin + share, channels)
    total = float64(0)
    if group < groups and place < places:
        step = uint64(groups * places)
        k = begin + group
        at = uint64((pair // targets * channels + k) * places + place)
        # Weights by position have the memory layout of activations.
        hop = step if pixels else uint64(groups)
        by = uint64((pair * channels + k) * places + place if pixels else pair * channels + k)
        while k + (LOADS - 1) * groups < end:
            for i in range(LOADS):
                a[i] = read(activations, at + uint64(i) * step)
            for i in range(LOADS):
                w[i] = read(weights, by + uint64(i) * hop)
            for i in range(LOADS // 2):
                w[i] = w[i] * a[i] + w[i + LOADS // 2] * a[i + LOADS // 2]
            total += float64((w[0] + w[1]) + (w[2] + w[3]))
            k += LOADS * groups
            at += uint64(LOADS) * step
            by += uint64(LOADS) * hop
        while k < end:
            total += float64(read(weights, by) * read(activations, at))
            k += groups
            at += step
            by += hop
    total = _groups_total(total, sums, width, groups)
    if group == 0 and place < places:
        if relu and total < 0:
            total = 0.0
        slices = cuda.gridDim.x // stretches
        out[uint64((cuda.blockIdx.y * slices + pair) * places + place)] = float32(total)


@compiled
def finish(partial, out, shares, count, relu):
    """Add up the partial maps of the channels' shares."""
    i = cuda.grid(1)
    if i < count:
        total = float64(0)
        for share in range(shares):
            total += float64(partial[share * count + i])
        if relu and total < 0:
            total = 0.0
        out[i] = float32(total)
